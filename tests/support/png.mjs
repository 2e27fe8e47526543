// Small real PNG files, as the picture worker would send them, and the texts inside.
import { deflateSync } from 'node:zlib';

const table = Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

function crc32(bytes) {
  let c = 0xffffffff;
  for (const b of bytes) c = table[(c ^ b) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

function chunk(type, data) {
  const out = Buffer.alloc(data.length + 12);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, 'latin1');
  data.copy(out, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

// A grey picture; `parameters` becomes a tEXt chunk where Latin-1 can say it, else an iTXt chunk. `padding` adds
// that many bytes in a private chunk, for tests that need a big file.
export function makePng({ width, height, parameters, padding = 0 }) {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 0, 0, 0, 0], 8);
  const parts = [signature, chunk('IHDR', head)];
  if (parameters !== undefined) {
    const latin = [...parameters].every((c) => c.codePointAt(0) < 256);
    parts.push(latin
      ? chunk('tEXt', Buffer.from(`parameters\0${parameters}`, 'latin1'))
      : chunk('iTXt', Buffer.concat([Buffer.from('parameters\0\0\0\0\0', 'latin1'), Buffer.from(parameters)])));
  }
  if (padding > 0) parts.push(chunk('ruMp', Buffer.alloc(padding, 7)));
  const rows = Buffer.alloc((width + 1) * height, 128);
  for (let y = 0; y < height; y++) rows[y * (width + 1)] = 0; // no filter
  parts.push(chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0)));
  return Buffer.concat(parts);
}

// { width, height, texts: { keyword: text } } of a PNG, or an exception: tests use it to see that a picture is one.
export function readPng(bytes) {
  if (!bytes.subarray(0, 8).equals(signature)) throw new Error('not a PNG');
  const png = { texts: {} };
  for (let at = 8; at < bytes.length;) {
    const length = bytes.readUInt32BE(at);
    const type = bytes.toString('latin1', at + 4, at + 8);
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (crc32(bytes.subarray(at + 4, at + 8 + length)) !== bytes.readUInt32BE(at + 8 + length))
      throw new Error(`${type}: wrong checksum`);
    if (type === 'IHDR') Object.assign(png, { width: data.readUInt32BE(0), height: data.readUInt32BE(4) });
    if (type === 'tEXt') png.texts[data.toString('latin1', 0, data.indexOf(0))] = data.toString('latin1', data.indexOf(0) + 1);
    if (type === 'iTXt') png.texts[data.toString('latin1', 0, data.indexOf(0))] = data.toString('utf8', data.indexOf(0) + 5);
    at += 12 + length;
    if (type === 'IEND') return png;
  }
  throw new Error('the PNG ends too early');
}
