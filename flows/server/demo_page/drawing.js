// Paper to draw on, or a picture from a file, as the pixels that the model takes.
import { fitted, grey, inverted } from "./pixels.js";

const LONGER_SIDE = 320; // of the paper
const LARGEST = 64_000_000; // pixels of a file, as for batch predictions
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

async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  if (bitmap.width * bitmap.height > LARGEST) throw new Error("the picture is too large");
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.getContext("2d").getImageData(0, 0, bitmap.width, bitmap.height);
}

function isTransparent({ data }) {
  for (let at = 3; at < data.length; at += 4) if (data[at] < 255) return true;
  return false;
}

// Transparency is ignored, as by `gradmill predict`: a canvas has forgotten the colours below it, a server has not.
async function readByServer(file) {
  const answer = await fetch("pixels", { method: "POST", body: file });
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
    changed(pen.getImageData(0, 0, paper.width, paper.height));
  };
  paper.addEventListener("pointerdown", (event) => {
    paper.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(event);
  });
  paper.addEventListener("pointermove", (event) => last && stroke(event));
  for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => (last = null));
}

export function showDrawing(model, samples, ask) {
  const [height, width, channels] = model.shape;
  const [paper, ground] = [at("paper"), model.is_dark ? "#000000" : "#ffffff"];
  const empty = new Uint8Array(height * width * (channels ?? 1)).fill(model.is_dark ? 0 : 255);
  let shown = null; // pixels of the model's shape, before they are inverted; null while the paper is empty
  const see = () => {
    const row = at("invert").checked ? inverted(shown ?? empty) : (shown ?? empty);
    paint(at("seen"), row, model.shape);
    ask(shown && row);
  };
  const take = ({ data, width: wide, height: high }) => {
    shown = fitted(channels ? data.filter((_, index) => index % 4 < 3) : grey(data), high, wide, model.shape);
    see();
  };
  const onPaper = (source) => paper.getContext("2d").drawImage(source, 0, 0, paper.width, paper.height);
  const put = (row) => {
    const picture = document.createElement("canvas");
    paint(picture, row, model.shape);
    onPaper(picture);
    shown = row;
    see();
  };
  const takeFile = async (file) => {
    try {
      const image = await pixelsOf(file);
      if (isTransparent(image)) {
        put(await readByServer(file));
      } else {
        onPaper(await createImageBitmap(image));
        take(image);
      }
    } catch (error) {
      at("answer").textContent = `${file.name} is no picture that this browser can read: ${error.message}`;
    }
  };
  const clear = () => {
    Object.assign(paper.getContext("2d"), { fillStyle: ground }).fillRect(0, 0, paper.width, paper.height);
    shown = null;
    see();
  };
  const scale = LONGER_SIDE / Math.max(height, width);
  Object.assign(paper, { width: Math.round(width * scale), height: Math.round(height * scale) });
  paper.getContext("2d", { willReadFrequently: true }).imageSmoothingEnabled = false;
  at("brush").value = 24;
  at("ink").value = model.is_dark ? "#ffffff" : "#000000";
  at("ink-label").hidden = !channels;
  drawnOn(paper, take);
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
