// What a request can name: samplers, and the files that lie in the folders. Files are looked for again whenever somebody opens a
// list of them, because they may have been put there meanwhile.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import * as api from '../api/client'

export interface Choice {
  name: string
  label: string
}

const asItIs = (name: string): Choice => ({ name, label: name })

const resizing: Choice[] = [
  { name: 'lanczos', label: 'Lanczos' },
  { name: 'nearest', label: 'Nearest' },
]
const latents: Choice[] = [
  { name: 'latent', label: 'Latent' },
  { name: 'latent-nearest', label: 'Latent (nearest)' },
]
const dialectLabels: Record<string, string> = { a1111: 'A1111', comfy: 'ComfyUI' }

export const useOptions = defineStore('options', () => {
  const samplers = ref<Choice[]>([])
  const schedulers = ref<Choice[]>([])
  const dialects = ref<Choice[]>([])
  const loras = ref<string[]>([])
  const vaes = ref<Choice[]>([])
  const networks = ref<Choice[]>([])

  /** Networks first: who has one wants it. */
  const upscalers = computed(() => [...networks.value, ...resizing])
  const hiresUpscalers = computed(() => [...latents, ...networks.value, ...resizing])

  async function lookForLoras(): Promise<void> {
    loras.value = await api.namesOf('loras')
  }

  async function lookForVaes(): Promise<void> {
    vaes.value = (await api.namesOf('vaes')).filter((name) => name !== 'automatic').map(asItIs)
  }

  async function lookForUpscalers(): Promise<void> {
    const known = resizing.map((way) => way.name)
    networks.value = (await api.namesOf('upscalers')).filter((name) => !known.includes(name)).map(asItIs)
  }

  async function load(): Promise<void> {
    const lists = await api.samplersAndSchedules()
    samplers.value = lists.samplers
    schedulers.value = lists.schedulers
    dialects.value = lists.dialects.map((name) => ({ name, label: dialectLabels[name] ?? name }))
    await Promise.all([lookForLoras(), lookForVaes(), lookForUpscalers()])
  }

  return { samplers, schedulers, dialects, loras, vaes, networks, upscalers, hiresUpscalers, load, lookForLoras, lookForVaes, lookForUpscalers }
})
