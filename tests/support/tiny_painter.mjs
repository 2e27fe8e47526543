// A picture model in SD 1.x layout that is as small as the architecture allows and whose weights are random: what
// it draws is noise, but everything that a real model needs is there. 4 MB, made in a moment, always the same.
import { readFileSync, writeFileSync } from 'node:fs';

const WIDTH = 16; // of the U-Net's first level
const CONTEXT = 16; // of the text encoder
const VAE = 8;

// name -> shape
function tensors() {
  const out = {};
  const conv = (name, to, from, size = 3) => Object.assign(out, { [`${name}.weight`]: [to, from, size, size], [`${name}.bias`]: [to] });
  const linear = (name, to, from, bias = true) => Object.assign(out, { [`${name}.weight`]: [to, from], ...(bias && { [`${name}.bias`]: [to] }) });
  const norm = (name, n) => Object.assign(out, { [`${name}.weight`]: [n], [`${name}.bias`]: [n] });

  const text = 'cond_stage_model.transformer.text_model';
  out[`${text}.embeddings.token_embedding.weight`] = [49408, CONTEXT];
  out[`${text}.embeddings.position_embedding.weight`] = [77, CONTEXT];
  for (const i of [0, 1]) {
    const layer = `${text}.encoder.layers.${i}`;
    for (const n of ['q', 'k', 'v', 'out']) linear(`${layer}.self_attn.${n}_proj`, CONTEXT, CONTEXT);
    linear(`${layer}.mlp.fc1`, 4 * CONTEXT, CONTEXT);
    linear(`${layer}.mlp.fc2`, CONTEXT, 4 * CONTEXT);
    norm(`${layer}.layer_norm1`, CONTEXT);
    norm(`${layer}.layer_norm2`, CONTEXT);
  }
  norm(`${text}.final_layer_norm`, CONTEXT);

  const unet = 'model.diffusion_model';
  const res = (name, to, from) => {
    norm(`${name}.in_layers.0`, from);
    conv(`${name}.in_layers.2`, to, from);
    linear(`${name}.emb_layers.1`, to, 4 * WIDTH);
    norm(`${name}.out_layers.0`, to);
    conv(`${name}.out_layers.3`, to, to);
    if (to !== from) conv(`${name}.skip_connection`, to, from, 1);
  };
  const transformer = (name, n) => {
    norm(`${name}.norm`, n);
    conv(`${name}.proj_in`, n, n, 1);
    conv(`${name}.proj_out`, n, n, 1);
    const block = `${name}.transformer_blocks.0`;
    for (const [attention, from] of [['attn1', n], ['attn2', CONTEXT]]) {
      linear(`${block}.${attention}.to_q`, n, n, false);
      linear(`${block}.${attention}.to_k`, n, from, false);
      linear(`${block}.${attention}.to_v`, n, from, false);
      linear(`${block}.${attention}.to_out.0`, n, n);
    }
    for (const i of [1, 2, 3]) norm(`${block}.norm${i}`, n);
    linear(`${block}.ff.net.0.proj`, 8 * n, n);
    linear(`${block}.ff.net.2`, n, 4 * n);
  };
  const [a, b] = [WIDTH, 2 * WIDTH];
  linear(`${unet}.time_embed.0`, 4 * a, a);
  linear(`${unet}.time_embed.2`, 4 * a, 4 * a);
  conv(`${unet}.input_blocks.0.0`, a, 4);
  res(`${unet}.input_blocks.1.0`, a, a);
  conv(`${unet}.input_blocks.2.0.op`, a, a);
  res(`${unet}.input_blocks.3.0`, b, a);
  transformer(`${unet}.input_blocks.3.1`, b);
  res(`${unet}.middle_block.0`, b, b);
  transformer(`${unet}.middle_block.1`, b);
  res(`${unet}.middle_block.2`, b, b);
  res(`${unet}.output_blocks.0.0`, b, b + b);
  transformer(`${unet}.output_blocks.0.1`, b);
  res(`${unet}.output_blocks.1.0`, b, b + a);
  transformer(`${unet}.output_blocks.1.1`, b);
  conv(`${unet}.output_blocks.1.2.conv`, b, b);
  res(`${unet}.output_blocks.2.0`, a, b + a);
  res(`${unet}.output_blocks.3.0`, a, a + a);
  norm(`${unet}.out.0`, a);
  conv(`${unet}.out.2`, 4, a);

  const vae = 'first_stage_model';
  const block = (name, n) => {
    norm(`${name}.norm1`, n);
    conv(`${name}.conv1`, n, n);
    norm(`${name}.norm2`, n);
    conv(`${name}.conv2`, n, n);
  };
  conv(`${vae}.post_quant_conv`, 4, 4, 1);
  conv(`${vae}.decoder.conv_in`, VAE, 4);
  block(`${vae}.decoder.mid.block_1`, VAE);
  norm(`${vae}.decoder.mid.attn_1.norm`, VAE);
  for (const n of ['q', 'k', 'v', 'proj_out']) conv(`${vae}.decoder.mid.attn_1.${n}`, VAE, VAE, 1);
  block(`${vae}.decoder.mid.block_2`, VAE);
  for (let level = 0; level < 4; level++) {
    for (const i of [0, 1]) block(`${vae}.decoder.up.${level}.block.${i}`, VAE);
    if (level) conv(`${vae}.decoder.up.${level}.upsample.conv`, VAE, VAE);
  }
  norm(`${vae}.decoder.norm_out`, VAE);
  conv(`${vae}.decoder.conv_out`, 3, VAE);
  conv(`${vae}.encoder.conv_in`, VAE, 3);
  for (let level = 0; level < 4; level++) {
    block(`${vae}.encoder.down.${level}.block.0`, VAE);
    if (level < 3) conv(`${vae}.encoder.down.${level}.downsample.conv`, VAE, VAE);
  }
  block(`${vae}.encoder.mid.block_1`, VAE);
  block(`${vae}.encoder.mid.block_2`, VAE);
  norm(`${vae}.encoder.norm_out`, VAE);
  conv(`${vae}.encoder.conv_out`, 8, VAE);
  conv(`${vae}.quant_conv`, 8, 8, 1);
  return out;
}

const metadata = {
  'mysti.name': 'tiny', 'mysti.unet_heads': '2', 'mysti.text_heads': '1', 'mysti.default_width': '64',
  'mysti.default_height': '64', 'mysti.default_steps': '4', 'mysti.default_cfg_scale': '5',
};

// The values of each tensor: fill(name, shape) gives them in a row.
function write(path, shapes, meta, fill) {
  const head = { __metadata__: meta };
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 4 * shape.reduce((x, y) => x * y, 1);
    head[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const text = Buffer.from(JSON.stringify(head));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const data = new Float32Array(offset / 4);
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const next = fill(name, shape);
    for (let i = shape.reduce((x, y) => x * y, 1); i > 0; i--) data[at++] = next();
  }
  writeFileSync(path, Buffer.concat([length, text, Buffer.from(data.buffer)]));
  return path;
}

// -1..1, always the same
function numbers() {
  let seed = 1;
  return () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 31 - 1;
}

// change(tensors, metadata): spoil it before it is written
export function writeTinyPainter(path, change = () => {}) {
  const shapes = tensors();
  const meta = { ...metadata };
  const random = numbers();
  change(shapes, meta);
  return write(path, shapes, meta, (name, shape) => {
    const isNorm = shape.length === 1 && name.endsWith('.weight');
    const scale = Math.sqrt(3 / (shape.reduce((x, y) => x * y, 1) / shape[0]));
    return () => {
      const value = random();
      return isNorm ? 1 : value * scale * (shape.length === 1 ? 0.02 : 1);
    };
  });
}

// A textual inversion for it: two vectors.
export function writeTinyEmbedding(path, width = CONTEXT) {
  const random = numbers();
  return write(path, { emb_params: [2, width] }, {}, () => random);
}

// Another VAE for it, alone in its file.
export function writeTinyVae(path, change = () => {}) {
  const prefix = 'first_stage_model.';
  const shapes = Object.fromEntries(Object.entries(tensors()).filter(([name]) => name.startsWith(prefix)).map(([name, shape]) => [name.slice(prefix.length), shape]));
  const random = numbers();
  change(shapes);
  return write(path, shapes, {}, (name, shape) => () => random() * (shape.length === 1 ? 1 : 0.1));
}

// A tiny autoencoder for it, as diffusers writes one: TAESD with one block on each side.
export function writeTinyTaesd(path) {
  const shapes = {};
  const conv = (name, to, from, bias = true) => Object.assign(shapes, { [`${name}.weight`]: [to, from, 3, 3], ...(bias && { [`${name}.bias`]: [to] }) });
  const block = (name) => [0, 2, 4].forEach((i) => conv(`${name}.conv.${i}`, 4, 4));
  conv('decoder.layers.0', 4, 4);
  for (const [i, level] of [2, 5, 8].entries()) { // block, doubling, convolution
    block(`decoder.layers.${level}`);
    conv(`decoder.layers.${level + 2}`, 4, 4, false);
    conv(`encoder.layers.${2 * i + 2}`, 4, 4, false);
  }
  conv('decoder.layers.11', 3, 4);
  conv('encoder.layers.0', 4, 3);
  block('encoder.layers.1');
  conv('encoder.layers.7', 4, 4);
  const random = numbers();
  return write(path, shapes, {}, () => () => random() * 0.3);
}

// A LoRA for it, as kohya writes them, and one key that means nothing here.
export function writeTinyLora(path, change = () => {}) {
  const shapes = {};
  const attention = 'lora_unet_middle_block_1_transformer_blocks_0_attn';
  for (const part of ['1_to_q', '1_to_v', '2_to_out_0']) {
    shapes[`${attention}${part}.lora_up.weight`] = [2 * WIDTH, 2];
    shapes[`${attention}${part}.lora_down.weight`] = [2, 2 * WIDTH];
  }
  shapes['lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha'] = [1];
  const random = numbers();
  change(shapes);
  return write(path, shapes, { ss_base_model_version: 'sd_v1' }, () => random);
}

// An upscaler of the ESRGAN family under Real-ESRGAN's names, four times, one block.
export function writeTinyUpscaler(path) {
  const shapes = {};
  const conv = (name, to, from) => Object.assign(shapes, { [`${name}.weight`]: [to, from, 3, 3], [`${name}.bias`]: [to] });
  const [wide, growth] = [4, 2];
  conv('conv_first', wide, 3);
  for (const part of [1, 2, 3])
    for (let i = 1; i <= 5; i++) conv(`body.0.rdb${part}.conv${i}`, i === 5 ? wide : growth, wide + (i - 1) * growth);
  for (const name of ['conv_body', 'conv_up1', 'conv_up2', 'conv_hr']) conv(name, wide, wide);
  conv('conv_last', 3, wide);
  const random = numbers();
  return write(path, shapes, {}, (name, shape) => () => random() * (shape.length === 1 ? 0.1 : 0.3) + (name === 'conv_last.bias' ? 0.5 : 0));
}

// The VAE of a picture model's file, as a file of its own.
export function writeVaeOf(model, path) {
  const file = readFileSync(model);
  const begin = 8 + Number(file.readBigUInt64LE(0));
  const tensors = Object.entries(JSON.parse(file.subarray(8, begin).toString())).filter(([name]) => name.startsWith('first_stage_model.'));
  const head = {};
  const data = [];
  let at = 0;
  for (const [name, { data_offsets: [from, to], ...what }] of tensors) {
    head[name] = { ...what, data_offsets: [at, (at += to - from)] };
    data.push(file.subarray(begin + from, begin + to));
  }
  const text = Buffer.from(JSON.stringify(head));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, ...data]));
}
