// A picture's own words back into the form: the line that AUTOMATIC1111 made up ("Steps: 20, Sampler: Euler, ...") says nearly
// all of it, and Mysti writes it, too. What it does not say stays the model's own.
import { pictureFields, type PictureFields } from './request'
import type { Choice } from './stores/options'

/** The value of a key; one that has a comma or a colon in it is quoted as in JSON. */
export function saidIn(text: string, key: string): string | null {
  const line = text.split('\n').at(-1)!
  const found = new RegExp(`(?:^|, )${key}: ("(?:[^"\\\\]|\\\\.)*"|[^,]*)`).exec(line)
  if (!found) return null
  try {
    return found[1]!.startsWith('"') ? (JSON.parse(found[1]!) as string) : found[1]!.trim()
  } catch {
    return found[1]!
  }
}

const folded = (word: string) => word.toLowerCase().replace(/\.[a-z0-9]+$/, '').replace(/[^a-z0-9]/g, '')

/** The name of the choice that is meant by a label, or by a file's name with its ending. */
function named(choices: Choice[], word: string | null): string | null {
  if (!word) return null
  const meant = choices.find((choice) => [choice.name, choice.label].some((known) => folded(known) === folded(word)))
  return meant?.name ?? null
}

export interface Lists {
  samplers: Choice[]
  schedulers: Choice[]
  vaes: Choice[]
  hiresUpscalers: Choice[]
}

export function settingsOf(text: string, negative: string, lists: Lists): PictureFields {
  const number = (key: string) => {
    const said = saidIn(text, key)
    return said !== null && Number.isFinite(Number(said)) ? Number(said) : null
  }
  const size = (key: string) => (/^(\d+)x(\d+)$/.exec(saidIn(text, key) ?? '') ?? []).slice(1).map(Number)
  const [width, height] = size('Size')
  const [hiresWidth] = size('Hires resize')
  const strength = number('Denoising strength')
  const variation = number('Variation seed strength')
  const hires = saidIn(text, 'Hires upscale') !== null || hiresWidth !== undefined
  return {
    ...pictureFields(),
    negative,
    width: width ?? null,
    height: height ?? null,
    steps: number('Steps'),
    cfg: number('CFG scale'),
    seed: number('Seed'),
    sampler: named(lists.samplers, saidIn(text, 'Sampler')),
    scheduler: named(lists.schedulers, saidIn(text, 'Schedule type')),
    vae: named(lists.vaes, saidIn(text, 'VAE')),
    clipSkip: number('Clip skip'),
    variationStrength: variation === null ? null : variation * 100,
    variationSeed: number('Variation seed'),
    seamless: { X: 'x', Y: 'y', True: 'both' }[saidIn(text, 'Tiling') ?? ''] ?? null,
    hires,
    hiresScale: number('Hires upscale') ?? (hiresWidth && width ? hiresWidth / width : null),
    hiresSteps: number('Hires steps'),
    hiresUpscaler: named(lists.hiresUpscalers, saidIn(text, 'Hires upscaler')),
    hiresStrength: hires && strength !== null ? strength * 100 : null,
  }
}
