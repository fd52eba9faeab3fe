// A form of a table's columns: what is typed becomes one row of features, NaN where it is missing.
const MISSING = "";

function field(column) {
  const input = document.createElement(column.kind === "number" ? "input" : "select");
  if (column.kind === "number") {
    Object.assign(input, { type: "number", step: "any", placeholder: "missing" });
  } else {
    const levels = column.kind === "boolean" ? ["no", "yes"] : column.levels;
    const known = levels.map((level, code) => new Option(level, code));
    const another = column.kind === "category" ? [new Option("(another)", levels.length)] : [];
    input.append(...known, ...another, new Option("(missing)", MISSING));
  }
  return input;
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
  const changed = () => ask(Float32Array.from(fields, ({ value }) => (value === MISSING ? NaN : Number(value))));
  const fill = (row) => {
    fields.forEach((input, index) => {
      input.value = Number.isNaN(row[index]) ? MISSING : Number(row[index].toPrecision(7));
    });
    changed();
  };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  samples.forEach((row, index) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: `row ${index + 1}`, onclick: () => fill(row) });
    document.getElementById("samples").append(button);
  });
  fill(samples[0]);
}
