// What the page says and sends, without a browser.
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

import type { Progress } from '../src/api/client'
import { factsOf } from '../src/facts'
import { percentOf, statusOf } from '../src/progress'
import { changedCount, drawingOf, editOf, largerSize, pictureFields, startFields, variationsOf } from '../src/request'
import { settingsOf } from '../src/settings'
import { components } from '../src/theme'

describe('drawingOf', () => {
  it('sends nothing that was left alone', () => {
    expect(drawingOf('a boat', pictureFields())).toEqual({ prompt: 'a boat' })
    expect(drawingOf('a boat', { ...pictureFields(), negative: '  ', width: 512, hiresScale: 3 })).toEqual({ prompt: 'a boat', width: 512 })
  })

  it('has the names of the API for what was said', () => {
    const f = { ...pictureFields(), negative: ' fog ', width: 512, height: 768, count: 2, steps: 9, cfg: 0, sampler: 'euler', scheduler: 'karras',
      seed: 0, variationStrength: 25, variationSeed: 3, seamless: 'x', vae: 'soft', clipSkip: 2, dialect: 'comfy' }
    expect(drawingOf('a boat', f)).toEqual({ prompt: 'a boat', negative_prompt: 'fog', width: 512, height: 768, n: 2, steps: 9, cfg_scale: 0,
      sampler: 'euler', scheduler: 'karras', seed: 0, variation_strength: 0.25, variation_seed: 3, seamless: 'x', vae: 'soft', clip_skip: 2,
      dialect: 'comfy' })
  })

  it('asks for the hires fix only where it is on, and leaves its values to the server', () => {
    expect(drawingOf('a', { ...pictureFields(), hires: true })).toEqual({ prompt: 'a', hires: {} })
    const f = { ...pictureFields(), hires: true, hiresUpscaler: 'x4', hiresScale: 1.5, hiresStrength: 40, hiresSteps: 7 }
    expect(drawingOf('a', f).hires).toEqual({ upscaler: 'x4', scale: 1.5, strength: 0.4, steps: 7 })
  })
})

describe('editOf', () => {
  const own = { width: 768, height: 512, isOwn: true }

  it('draws what Mysti drew at its size, other pictures at the one that the server finds, both at the one that was said', () => {
    expect(editOf('a', pictureFields(), startFields(), own, false)).toEqual({ prompt: 'a', width: 768, height: 512, strength: 0.75 })
    expect(editOf('a', pictureFields(), startFields(), { ...own, isOwn: false }, false)).toEqual({ prompt: 'a', strength: 0.75 })
    expect(editOf('a', pictureFields(), startFields(), { ...own, width: 3072 }, false)).toEqual({ prompt: 'a', strength: 0.75 })
    const said = { ...pictureFields(), width: 256, height: 512 }
    expect(editOf('a', said, startFields(), own, false)).toMatchObject({ width: 256, height: 512 })
    expect(editOf('a', { ...said, height: null }, startFields(), own, false)).toMatchObject({ width: 256, height: 168 })
    expect(editOf('a', { ...said, width: null }, startFields(), own, false)).toMatchObject({ width: 768, height: 512 })
  })

  it('has no hires fix, and no prompt when there is none', () => {
    expect(editOf('', { ...pictureFields(), hires: true }, { ...startFields(), strength: 0 }, own, false)).toEqual({ width: 768, height: 512, strength: 0 })
  })
})

describe('editOf with a mask', () => {
  it('has the names of the API, and padding only where it means something', () => {
    const s = { ...startFields(), blur: 0, fill: 'latent noise', padding: 16 }
    const from = { width: 8, height: 8, isOwn: false }
    expect(editOf('a', pictureFields(), s, from, false)).toEqual({ prompt: 'a', strength: 0.75 })
    expect(editOf('a', pictureFields(), s, from, true)).toEqual({ prompt: 'a', strength: 0.75, mask_blur: 0, fill: 'latent noise' })
    expect(editOf('a', pictureFields(), { ...s, onlyMasked: true }, from, true)).toEqual({ prompt: 'a', strength: 0.75, mask_blur: 0,
      fill: 'latent noise', only_masked: true, padding: 16 })
  })
})

describe('variationsOf', () => {
  it('asks for four with seeds of their own, as the form says otherwise', () => {
    const f = { ...pictureFields(), seed: 3, count: 9, width: 64, height: 64, variationStrength: 10, steps: 8 }
    expect(variationsOf('a boat', f, { width: 512, height: 512 })).toEqual({ prompt: 'a boat', n: 4, steps: 8, width: 512, height: 512 })
  })
})

describe('settingsOf', () => {
  const choice = (name: string, label: string) => ({ name, label })
  const lists = { samplers: [choice('euler', 'Euler'), choice('dpmpp_2m', 'DPM++ 2M')], schedulers: [choice('karras', 'Karras')],
    vaes: [choice('soft, old', 'soft, old')], hiresUpscalers: [choice('latent-nearest', 'Latent (nearest)'), choice('x4', 'x4')] }

  it('finds what the form has in what the picture says', () => {
    const text = 'a boat, Steps: 3\nNegative prompt: fog\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 0, Size: 512x768, ' +
      'Model: "a: b, c", VAE: "soft, old.safetensors", Variation seed: 9, Variation seed strength: 0.25, Clip skip: 2, Denoising strength: 0.5, ' +
      'Hires upscale: 1.5, Hires steps: 7, Hires upscaler: Latent (nearest), Tiling: True, Version: Mysti'
    expect(settingsOf(text, 'fog', lists)).toEqual({ ...pictureFields(), negative: 'fog', width: 512, height: 768, steps: 20, cfg: 7.5, seed: 0,
      sampler: 'dpmpp_2m', scheduler: 'karras', vae: 'soft, old', clipSkip: 2, variationSeed: 9, variationStrength: 25, seamless: 'both',
      hires: true, hiresScale: 1.5, hiresSteps: 7, hiresUpscaler: 'latent-nearest', hiresStrength: 50 })
  })

  it('leaves the rest to the model, also what is not there any more', () => {
    expect(settingsOf('', '', lists)).toEqual(pictureFields())
    expect(settingsOf('x\nSteps: many, Sampler: Unheard of, Denoising strength: 0.5, Size: large', '', lists)).toEqual(pictureFields())
    expect(settingsOf('x\nSize: 100x100, Hires resize: 150x200', '', lists)).toMatchObject({ hires: true, hiresScale: 1.5 })
  })
})

describe('changedCount', () => {
  it('counts what is said, and the hires fix once', () => {
    expect(changedCount(pictureFields())).toBe(0)
    expect(changedCount({ ...pictureFields(), negative: ' ', hiresScale: 2 })).toBe(0)
    expect(changedCount({ ...pictureFields(), negative: 'fog', seed: 0, hires: true, hiresScale: 3 })).toBe(3)
  })
})

describe('largerSize', () => {
  it('says what becomes of it, and when it is too large', () => {
    expect(largerSize(128, 96, 2.5)).toEqual({ width: 320, height: 240, fits: true })
    expect(largerSize(4096, 4096, 2).fits).toBe(false)
  })
})

describe('progress', () => {
  const p: Progress = { job: 'a', image: 0, images: 1, step: 5, steps: 20, time: 1, phase: 'sampling', label: 'Sampling...', eta_ms: 42000 }

  it('is one way for all pictures of a request', () => {
    expect(percentOf(p)).toBe(25)
    expect(percentOf({ ...p, image: 1, images: 2 })).toBe(63)
    expect(percentOf({ ...p, steps: 0 })).toBe(0)
  })

  it('says step, picture and time left', () => {
    expect(statusOf(p, '')).toBe('Sampling: step 5 of 20, about 42 s left')
    expect(statusOf({ ...p, image: 1, images: 3, eta_ms: 200000 }, '')).toBe('Sampling: picture 2 of 3, step 5 of 20, about 3 min left')
    expect(statusOf({ ...p, phase: 'upscaling', label: 'Upscaling...', eta_ms: null }, '')).toBe('Upscaling: part 5 of 20')
  })

  it('says the place in the line, and what is loaded meanwhile', () => {
    expect(statusOf(null, '')).toBe('waiting for its turn')
    expect(statusOf(null, 'queue position=2 eta_ms=30000')).toBe('waiting: 2 before it, about 30 s left')
    expect(statusOf(null, 'queue position=0')).toBe('waiting for its turn')
    expect(statusOf(null, 'loading painter.safetensors')).toBe('loading painter.safetensors')
  })
})

describe('factsOf', () => {
  it('names what is known, and the size that the file has', () => {
    expect(factsOf({ prompt: 'a', steps: 20, seed: 0, text: 'all of it', width: 128 }, 512, 256)).toBe('512 × 256 · steps 20 · seed 0')
    expect(factsOf({}, 0, 0)).toBe('')
  })
})

describe('what is picked out of libraries', () => {
  const src = fileURLToPath(new URL('../src/', import.meta.url))
  const sources = ['App.vue', ...readdirSync(`${src}components`).map((file) => `components/${file}`)].map((file) => readFileSync(src + file, 'utf8'))
  const all = (pattern: RegExp) => sources.flatMap((text) => [...text.matchAll(pattern)].map((found) => found[1]!))

  it('has every icon that a component names', () => {
    const css = readFileSync(`${src}icons.css`, 'utf8')
    expect(all(/(pi-[a-z-]+)/g).filter((name) => !css.includes(`.${name}::before`))).toEqual([])
  })

  it('has the colours of every component', () => {
    const used = all(/from 'primevue\/(\w+)'/g).filter((name) => name !== 'usetoast')
    expect(used.length).toBeGreaterThan(10)
    expect(used.filter((name) => !(name in components))).toEqual([])
  })
})
