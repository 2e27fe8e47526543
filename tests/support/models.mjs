// Model files that are just real enough to be recognised: what the server reads of a file before it hands it to a
// worker (the head), and nothing behind it.
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

function write(path, bytes) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
  return path;
}

function ggufString(text) {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([length, bytes]);
}

const u32 = (n) => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
};
const u64 = (n) => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(n));
  return b;
};

// A GGUF with the metadata key general.architecture, further numbers (u32) as they are given, and the named tensors,
// each one F32. bytes: of all tensors together; the file has a hole where they are, so it takes no room on the disk.
export function writeGguf(path, { architecture = 'llama', numbers = {}, tensors = ['token_embd.weight'], bytes } = {}) {
  const each = bytes ? Math.floor(bytes / tensors.length / 32) * 32 : 4;
  const parts = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(1 + Object.keys(numbers).length),
    ggufString('general.architecture'), u32(8), ggufString(architecture)];
  for (const [key, value] of Object.entries(numbers)) parts.push(ggufString(key), u32(4), u32(value));
  tensors.forEach((name, i) => parts.push(ggufString(name), u32(1), u64(each / 4), u32(0), u64(i * Math.max(each, 32))));
  const head = Buffer.concat(parts);
  if (bytes) {
    const start = Math.ceil(head.length / 32) * 32;
    truncateSync(write(path, head), start + each * tensors.length);
    return path;
  }
  return write(path, Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32 + tensors.length * 32)]));
}

const painterTensors = [
  'model.diffusion_model.input_blocks.0.0.weight',
  'first_stage_model.decoder.conv_in.weight',
  'cond_stage_model.transformer.text_model.embeddings.token_embedding.weight',
];

// bytes: as of a GGUF, above.
export function writeSafetensors(path, { tensors = painterTensors, metadata = {}, bytes } = {}) {
  const head = { __metadata__: metadata };
  const n = bytes ? Math.floor(bytes / tensors.length / 4) : 1;
  tensors.forEach((name, i) => (head[name] = { dtype: 'F32', shape: [n], data_offsets: [i * n * 4, (i + 1) * n * 4] }));
  const text = Buffer.from(JSON.stringify(head));
  if (bytes) {
    truncateSync(write(path, Buffer.concat([u64(text.length), text])), 8 + text.length + n * 4 * tensors.length);
    return path;
  }
  return write(path, Buffer.concat([u64(text.length), text, Buffer.alloc(tensors.length * 4)]));
}

// What is seen of a torch checkpoint from outside: an archive that begins with the pickle and its names.
export function writeTorch(path, { tensors = painterTensors } = {}) {
  return write(path, Buffer.from(`PK\x03\x04 archive/data.pkl ${tensors.join(' ')}`));
}
