// The prompt, and the magic wand that rewrites it: the text model's words stream into the box as they come.
// The wand keeps the old prompt for undo, and a second click stops it.
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'

import * as api from '../api/client'
import { keep } from './keep'

const SYSTEM =
  'You write prompts for pictures. Turn the idea into one vivid paragraph that keeps its subject and adds ' +
  'light, place, composition and style. Answer with the paragraph alone.'

/** A reasoning model's thoughts are not part of the prompt. */
export function withoutThoughts(text: string): string {
  return text.replace(/<think>[\s\S]*?(<\/think>|$)/g, '').trimStart()
}

/** <lora:...> says how, not what: the text model does not see it, and it stays. */
export function takeLorasOut(text: string): { text: string; loras: string } {
  const tags = text.match(/<(lora|lyco):[^>]+>/gi) ?? []
  return { text: text.replace(/\s*<(lora|lyco):[^>]+>/gi, '').trim(), loras: tags.map((tag) => ` ${tag}`).join('') }
}

export const usePrompt = defineStore('prompt', () => {
  const kept = ref({ text: '' })
  keep('mysti-prompt', kept)
  const text = computed({ get: () => kept.value.text, set: (words: string) => (kept.value.text = words) })
  const before = ref<string | null>(null)
  const writing = ref(false)
  const note = ref('')
  let job: AbortController | null = null

  /** Throws a Failure, with the old prompt back in place when nothing came. */
  async function enhance(): Promise<void> {
    if (writing.value) {
      job?.abort()
      return
    }
    const { text: idea, loras } = takeLorasOut(text.value)
    let answer = ''
    job = new AbortController()
    before.value = text.value
    writing.value = true
    try {
      await api.chat(
        [{ role: 'system', content: SYSTEM }, { role: 'user', content: `Enhance this prompt: ${idea}` }],
        (piece) => {
          note.value = ''
          answer += piece
          text.value = withoutThoughts(answer) + loras
        },
        (waiting) => (note.value = waiting),
        job.signal,
      )
    } catch (error) {
      if (!job.signal.aborted) throw error
    } finally {
      writing.value = false
      note.value = ''
      if (!text.value.trim()) undo()
    }
  }

  function addLora(name: string): void {
    text.value = `${text.value.trimEnd()} <lora:${name}:1>`.trimStart()
  }

  function undo(): void {
    if (before.value !== null) text.value = before.value
    before.value = null
  }

  return { text, before, writing, note, enhance, undo, addLora }
})
