// Which picture the dialog "Make it larger" is about; null: it is closed.
import { defineStore } from 'pinia'
import { ref } from 'vue'

import { pictureFile } from '../api/client'
import type { OwnPicture } from './picture'

export interface UpscaleSource {
  url: string
  prompt: string
  file: () => Promise<Blob>
}

export const useUpscale = defineStore('upscale', () => {
  const source = ref<UpscaleSource | null>(null)

  function open(picture: OwnPicture): void {
    source.value = { url: picture.url, prompt: picture.prompt, file: () => pictureFile(picture.url) }
  }

  /** A file that is here already. */
  function openFile(url: string, file: Blob, prompt: string): void {
    source.value = { url, prompt, file: () => Promise.resolve(file) }
  }

  return { source, open, openFile }
})
