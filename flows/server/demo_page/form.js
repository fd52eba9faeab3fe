// A form of a table's columns: what is typed becomes one row, null where a value is missing.
const MISSING = "\u0000";

function field(column) {
  const isChosen = column.kind === "category" || column.kind === "boolean";
  const input = document.createElement(isChosen ? "select" : "input");
  if (!isChosen) {
    Object.assign(input, { type: column.kind, step: "any", placeholder: "missing" });
  } else {
    const levels = column.kind === "boolean" ? ["false", "true"] : column.levels;
    const names = column.kind === "boolean" ? ["no", "yes"] : levels;
    input.append(...levels.map((level, at) => new Option(names[at], level)), new Option("(missing)", MISSING));
  }
  return input;
}

function read({ kind }, { value }) {
  if (value === MISSING || value === "") return kind === "category" && value === "" ? "" : null;
  return kind === "number" ? Number(value) : kind === "boolean" ? value === "true" : value;
}

export function showForm(model, samples, ask) {
  const form = document.getElementById("form");
  const fields = model.columns.map(field);
  model.columns.forEach((column, index) => {
    const label = document.createElement("label");
    label.textContent = column.name;
    label.htmlFor = fields[index].id = `column-${index}`;
    form.append(label, fields[index]);
  });
  const row = () => Object.fromEntries(model.columns.map((column, index) => [column.name, read(column, fields[index])]));
  const changed = () => ask(JSON.stringify(row()));
  const fill = (sample) => {
    model.columns.forEach(({ name, kind }, index) => {
      const value = sample[name] ?? (fields[index].tagName === "SELECT" ? MISSING : "");
      fields[index].value = kind === "datetime-local" ? value.replace(" ", "T") : value;
    });
    changed();
  };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  samples.forEach((sample, index) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: `row ${index + 1}`, onclick: () => fill(sample) });
    document.getElementById("samples").append(button);
  });
  fill(samples[0]);
}
