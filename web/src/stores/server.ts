// What the server is: its workers' states and its models, asked for every two seconds, and at once after
// something was changed from here. Losing the server is a state like any other, not an error dialog.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import * as api from '../api/client'

const POLL_MS = 2000

export const useServer = defineStore('server', () => {
  const reachable = ref(true)
  const health = ref<api.Health | null>(null)
  const models = ref<api.Model[]>([])
  const loading = ref<string | null>(null) // the model that was asked for and is not there yet

  const textModels = computed(() => models.value.filter((m) => m.type === 'llm'))
  const pictureModels = computed(() => models.value.filter((m) => m.type !== 'llm'))
  const activeOf = (kind: api.Kind) =>
    (kind === 'llm' ? textModels : pictureModels).value.find((m) => m.active)?.id ?? null

  async function refresh(): Promise<void> {
    try {
      ;[health.value, models.value] = await Promise.all([api.health(), api.models()])
      reachable.value = true
    } catch {
      reachable.value = false
    }
  }

  async function load(kind: api.Kind, id: string): Promise<void> {
    loading.value = id
    try {
      await api.loadModel(kind, id)
    } finally {
      loading.value = null
      await refresh()
    }
  }

  async function startWorker(kind: api.Kind): Promise<void> {
    await api.startWorker(kind)
    await refresh()
  }

  function watch(): () => void {
    void refresh()
    const timer = setInterval(() => void refresh(), POLL_MS)
    return () => clearInterval(timer)
  }

  return { reachable, health, models, loading, textModels, pictureModels, activeOf, refresh, load, startWorker, watch }
})
