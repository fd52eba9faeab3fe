// Paper to draw on, or a picture from a file, as the pixels that the model takes.
const LONGER_SIDE = 320; // of the paper
const at = (id) => document.getElementById(id);

function paint(canvas, pixels, [height, width, channels = 1]) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = pixels[pixel * channels + (channels === 3 ? channel : 0)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// As `gradmill predict` reads a picture, in the shape that the model takes.
async function read(picture) {
  const answer = await fetch("pixels", { method: "POST", body: picture });
  if (!answer.ok) throw new Error(await answer.text());
  return new Uint8Array(await answer.arrayBuffer());
}

function drawnOn(paper, changed) {
  const pen = paper.getContext("2d", { willReadFrequently: true });
  let last = null;
  const place = ({ offsetX, offsetY }) => [
    (offsetX * paper.width) / paper.clientWidth,
    (offsetY * paper.height) / paper.clientHeight,
  ];
  const stroke = (event) => {
    Object.assign(pen, { lineWidth: at("brush").value, lineCap: "round", strokeStyle: at("ink").value });
    pen.beginPath();
    pen.moveTo(...last);
    last = place(event);
    pen.lineTo(...last);
    pen.stroke();
    changed();
  };
  paper.addEventListener("pointerdown", (event) => {
    paper.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(event);
  });
  paper.addEventListener("pointermove", (event) => last && stroke(event));
  for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => (last = null));
}

export function showDrawing(model, samples, ask, lastOnly) {
  const [height, width, channels] = model.shape;
  const [paper, ground] = [at("paper"), model.is_dark ? "#000000" : "#ffffff"];
  const empty = new Uint8Array(height * width * (channels ?? 1)).fill(model.is_dark ? 0 : 255);
  let shown = null; // pixels of the model's shape, before they are inverted; null while the paper is empty
  const see = () => {
    const row = at("invert").checked ? (shown ?? empty).map((value) => 255 - value) : (shown ?? empty);
    paint(at("seen"), row, model.shape);
    ask(shown && row);
  };
  let isDrawn = false; // by hand, since the paper was empty or had a picture: whose pixels may come later than that
  const put = (row) => {
    const picture = document.createElement("canvas");
    paint(picture, row, model.shape);
    paper.getContext("2d").drawImage(picture, 0, 0, paper.width, paper.height);
    isDrawn = false;
    shown = row;
    see();
  };
  const readPaper = lastOnly(async () => {
    const row = await read(await new Promise((done) => paper.toBlob(done)));
    if (isDrawn) {
      shown = row;
      see();
    }
  });
  const draw = () => {
    isDrawn = true;
    readPaper();
  };
  const takeFile = async (file) => {
    try {
      put(await read(file));
    } catch (error) {
      at("answer").textContent = `${file.name} is not a picture that can be read: ${error.message}`;
    }
  };
  const clear = () => {
    Object.assign(paper.getContext("2d"), { fillStyle: ground }).fillRect(0, 0, paper.width, paper.height);
    isDrawn = false;
    shown = null;
    see();
  };
  const scale = LONGER_SIDE / Math.max(height, width);
  Object.assign(paper, { width: Math.round(width * scale), height: Math.round(height * scale) });
  paper.getContext("2d", { willReadFrequently: true }).imageSmoothingEnabled = false;
  at("brush").value = 24;
  at("ink").value = model.is_dark ? "#ffffff" : "#000000";
  at("ink-label").hidden = !channels;
  drawnOn(paper, draw);
  at("clear").onclick = clear;
  at("invert").onchange = see;
  at("file").onchange = ({ target }) => target.files[0] && takeFile(target.files[0]);
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // or the browser would open the file
      paper.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
    });
  }
  samples.forEach((row, index) => {
    const [button, picture] = ["button", "canvas"].map((tag) => document.createElement(tag));
    paint(picture, row, model.shape);
    Object.assign(button, { type: "button", ariaLabel: `test image ${index + 1}` });
    button.onclick = () => put(row);
    button.append(picture);
    at("samples").append(button);
  });
  at("drawing").hidden = false;
  clear();
}
