// What the server is: its workers' states, its models, and what it asks, looked at every two seconds, and at once after
// something was changed from here. Losing the server is a state like any other, not an error dialog.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import * as api from '../api/client'

const POLL_MS = 2000

export const useServer = defineStore('server', () => {
  const reachable = ref(true)
  const locked = ref(false) // it wants a key that we do not have
  const health = ref<api.Health | null>(null)
  const models = ref<api.Model[]>([])
  const questions = ref<api.LeaveQuestion[]>([])
  let mayAnswer = true
  const loading = ref<string | null>(null) // the model that was asked for and is not there yet

  const textModels = computed(() => models.value.filter((m) => m.type === 'llm'))
  const pictureModels = computed(() => models.value.filter((m) => m.type !== 'llm'))
  const activeOf = (kind: api.Kind) =>
    (kind === 'llm' ? textModels : pictureModels).value.find((m) => m.default)?.id ?? null

  // Who may not answer them does not ask for them again; nothing else of the page hangs on it.
  async function lookForQuestions(): Promise<api.LeaveQuestion[]> {
    if (!mayAnswer) return []
    try {
      return await api.leaveQuestions()
    } catch (error) {
      mayAnswer = !(error instanceof api.Failure && error.status === 403)
      return []
    }
  }

  async function refresh(): Promise<void> {
    try {
      ;[health.value, models.value, questions.value] = await Promise.all([api.health(), api.models(), lookForQuestions()])
      reachable.value = true
      locked.value = false
    } catch (error) {
      // a server that says no is there
      reachable.value = error instanceof api.Failure && error.status > 0
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

  async function answer(id: number, leave: boolean): Promise<void> {
    try {
      await api.giveLeave(id, leave)
    } finally {
      await refresh()
    }
  }

  async function unlock(key: string): Promise<void> {
    api.setKey(key)
    mayAnswer = true
    await refresh()
  }

  function watch(): () => void {
    api.whenLocked(() => (locked.value = true))
    void refresh()
    const timer = setInterval(() => void refresh(), POLL_MS)
    return () => clearInterval(timer)
  }

  return { reachable, locked, unlock, health, models, questions, answer, loading, textModels, pictureModels, activeOf, refresh, load, startWorker, watch }
})
