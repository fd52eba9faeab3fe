// What `gradmill predict` does to a picture, as Pillow does it: grey by luma, then bilinear with antialiasing.

// RGBA of a canvas as grey, one byte a pixel.
export function grey(rgba) {
  const found = new Uint8Array(rgba.length / 4);
  for (let at = 0; at < found.length; at++) {
    const [red, green, blue] = rgba.subarray(4 * at, 4 * at + 3);
    found[at] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  }
  return found;
}

export const inverted = (pixels) => pixels.map((value) => 255 - value);

// Pixels (height, width, channels) brought to another height and width: columns first, then rows, bytes in between.
export function fitted(pixels, height, width, [toHeight, toWidth, channels = 1]) {
  const narrow = toWidth === width ? pixels : resized(pixels, height, width, toWidth, channels, 1, width);
  return toHeight === height ? Uint8Array.from(narrow) : resized(narrow, toWidth, height, toHeight, channels, toWidth, 1);
}

// Each of `lines` lines of `size` pixels, `step` apart, becomes one of `toSize`; the lines start `apart` from each other.
function resized(pixels, lines, size, toSize, channels, step, apart) {
  const found = new Uint8Array(lines * toSize * channels);
  const toApart = step === 1 ? toSize : 1;
  for (let to = 0; to < toSize; to++) {
    const { first, weights } = taken(size, toSize, to);
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        weights.forEach((weight, index) => {
          sum += weight * pixels[(line * apart + (first + index) * step) * channels + channel];
        });
        found[(line * toApart + to * step) * channels + channel] = Math.round(sum);
      }
    }
  }
  return found;
}

// Which pixels of a line of `size` make pixel `to` of `toSize`, and by which weights: a triangle over its middle.
function taken(size, toSize, to) {
  const scale = size / toSize;
  const reach = Math.max(scale, 1);
  const middle = (to + 0.5) * scale;
  const first = Math.max(0, Math.trunc(middle - reach + 0.5));
  const end = Math.min(size, Math.trunc(middle + reach + 0.5));
  const raw = Array.from({ length: end - first }, (_, index) => 1 - Math.abs((first + index - middle + 0.5) / reach));
  const weights = raw.map((weight) => Math.max(0, weight));
  const sum = weights.reduce((one, other) => one + other, 0);
  return { first, weights: weights.map((weight) => weight / sum) };
}
