// What a picture shows, as far as colours go: the mean of a square in its middle and of its border, and the name of
// the starter painter's colour that is nearest to one.
import { readFileSync } from 'node:fs';

const world = JSON.parse(readFileSync(new URL('../../training/painter/world.json', import.meta.url), 'utf8'));

/** { middle: [r, g, b], border: [r, g, b] } of what decodePng gives. */
export function middleAndBorder({ width, height, rgb }) {
  const mean = (inside) => {
    const sum = [0, 0, 0];
    let count = 0;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        if (inside(x, y)) {
          for (let c = 0; c < 3; c++) sum[c] += rgb[(y * width + x) * 3 + c];
          count++;
        }
    return sum.map((v) => v / count);
  };
  const edge = 6;
  return {
    middle: mean((x, y) => Math.abs(x - width / 2) < 8 && Math.abs(y - height / 2) < 8),
    border: mean((x, y) => x < edge || y < edge || x >= width - edge || y >= height - edge),
  };
}

export function nearestColor(rgb) {
  const distance = (other) => other.reduce((sum, v, c) => sum + (v - rgb[c]) ** 2, 0);
  return Object.entries(world.colors).sort((a, b) => distance(a[1]) - distance(b[1]))[0][0];
}
