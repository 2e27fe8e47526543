// What the form says, as the fields of a request. What was left alone is not sent: it then is the model's own, which this page does
// not know.
import type { Fields } from './api/client'

export const pictureFields = () => ({
  negative: '',
  width: null as number | null,
  height: null as number | null,
  count: null as number | null,
  steps: null as number | null,
  cfg: null as number | null,
  sampler: null as string | null,
  scheduler: null as string | null,
  seed: null as number | null,
  variationStrength: null as number | null, // percent
  variationSeed: null as number | null,
  seamless: null as string | null,
  vae: null as string | null,
  clipSkip: null as number | null,
  dialect: null as string | null,
  hires: false,
  hiresUpscaler: null as string | null,
  hiresScale: null as number | null,
  hiresStrength: null as number | null, // percent
  hiresSteps: null as number | null,
})

export type PictureFields = ReturnType<typeof pictureFields>

/** How many settings are not the model's own; those of the hires fix count as one. */
export function changedCount(f: PictureFields): number {
  return Object.entries(f).filter(([name, value]) =>
    name.startsWith('hires') ? value === true : typeof value === 'string' ? value.trim() !== '' : value !== null).length
}

/** Without what is null or empty. */
function given(fields: Record<string, Fields[string] | null>): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null && value !== '')) as Fields
}

const share = (percent: number | null) => (percent === null ? null : percent / 100)

function hiresOf(f: PictureFields): Fields {
  return given({ scale: f.hiresScale, upscaler: f.hiresUpscaler, strength: share(f.hiresStrength), steps: f.hiresSteps })
}

/** What every way of drawing takes. */
function walkOf(prompt: string, f: PictureFields): Fields {
  return given({
    prompt,
    negative_prompt: f.negative.trim(),
    n: f.count,
    steps: f.steps,
    cfg_scale: f.cfg,
    sampler: f.sampler,
    scheduler: f.scheduler,
    seed: f.seed,
    variation_strength: share(f.variationStrength),
    variation_seed: f.variationStrength === null ? null : f.variationSeed,
    seamless: f.seamless,
    vae: f.vae,
    clip_skip: f.clipSkip,
    dialect: f.dialect,
  })
}

export function drawingOf(prompt: string, f: PictureFields): Fields {
  return given({ ...walkOf(prompt, f), width: f.width, height: f.height, hires: f.hires ? hiresOf(f) : null })
}

export const startFields = () => ({
  strength: 75, // percent
  // of a masked part
  blur: null as number | null,
  fill: null as string | null,
  onlyMasked: false,
  padding: null as number | null,
})

export type StartFields = ReturnType<typeof startFields>

interface From {
  width: number
  height: number
  isOwn: boolean // Mysti drew it
}

const OWN_SIZE_MAX = 1024 * 1024 // pixels

const SIDE_STEP = 8 // what every model takes

/** What is drawn from a picture is as large as it was said, the other side in proportion; else as large as the picture where Mysti drew
 * that at this size, which its model then can; else the server takes the picture's proportions. */
function startSizeOf(f: { width: number | null; height: number | null }, from: From): Fields {
  const { width, height } = from
  const fitting = (side: number) => Math.max(SIDE_STEP, Math.round(side / SIDE_STEP) * SIDE_STEP)
  if (f.width || f.height)
    return { width: f.width ?? fitting((f.height! * width) / height), height: f.height ?? fitting((f.width! * height) / width) }
  const isDrawable = from.isOwn && width % SIDE_STEP === 0 && height % SIDE_STEP === 0 && width * height <= OWN_SIZE_MAX
  return isDrawable ? { width, height } : {}
}

function maskOf(s: StartFields): Fields {
  return given({ mask_blur: s.blur, fill: s.fill, ...(s.onlyMasked ? { only_masked: true, padding: s.padding } : {}) })
}

/** There is no hires fix from a picture. */
export function editOf(prompt: string, f: PictureFields, s: StartFields, from: From, isMasked: boolean): Fields {
  return given({ ...walkOf(prompt, f), ...startSizeOf(f, from), strength: share(s.strength), ...(isMasked ? maskOf(s) : {}) })
}

const VARIATIONS = 4

/** Others like one that was drawn: with seeds of their own, so the form's does not count. */
export function variationsOf(prompt: string, f: PictureFields, from: { width: number; height: number }): Fields {
  const walk = walkOf(prompt, { ...f, count: VARIATIONS, seed: null, variationStrength: null })
  return { ...walk, ...startSizeOf({ width: null, height: null }, { ...from, isOwn: true }) }
}

const PIXELS_MAX = 67_000_000 // of a picture that was made larger

/** What becomes of a picture; the server refuses one that is too large only after the file has travelled. */
export function largerSize(width: number, height: number, factor: number): { width: number; height: number; fits: boolean } {
  const wide = Math.round(width * factor)
  const high = Math.round(height * factor)
  return { width: wide, height: high, fits: wide * high <= PIXELS_MAX }
}
