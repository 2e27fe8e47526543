// The picture that drawing begins with: a file of the user's or one of this server's.
import { defineStore } from 'pinia'
import { ref, shallowRef } from 'vue'

import { Failure, pictureFile } from '../api/client'
import { coloured, Mask, maskSize } from '../mask'
import { startFields } from '../request'
import type { OwnPicture } from './picture'

export interface StartPicture {
  file: Blob
  url: string // to show it
  name: string
  width: number
  height: number
  prompt: string // that it was drawn with
  isOwn: boolean
}

const UNDERSTOOD = ['image/png', 'image/jpeg', 'image/webp'] // by the server

/** What the browser can read and the server cannot, such as GIF and AVIF, is drawn into a PNG. */
async function asPng(bitmap: ImageBitmap): Promise<Blob> {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height)
  canvas.getContext('2d')!.drawImage(bitmap, 0, 0)
  return canvas.convertToBlob({ type: 'image/png' })
}

export const useStart = defineStore('start', () => {
  const picture = ref<StartPicture | null>(null)
  const fields = ref(startFields())
  const mask = shallowRef<Mask | null>(null) // a part is to be painted, or is
  const isMasked = ref(false) // it is
  const canUndo = ref(false)

  /** A mask cannot be watched itself: it is a million numbers. */
  function maskChanged(): void {
    isMasked.value = mask.value !== null && !mask.value.isEmpty
    canUndo.value = mask.value?.canUndo ?? false
  }

  function beginMask(): void {
    mask.value = new Mask(maskSize(picture.value!.width, picture.value!.height))
    maskChanged()
  }

  function removeMask(): void {
    mask.value = null
    maskChanged()
  }

  /** White is drawn anew, black stays. */
  async function maskFile(): Promise<Blob | null> {
    const m = mask.value
    if (!m || m.isEmpty) return null
    const canvas = new OffscreenCanvas(m.width, m.height)
    const pixels = coloured(m, m.whole, [[255, 255, 255, 255]], [0, 0, 0, 255])
    canvas.getContext('2d')!.putImageData(new ImageData(pixels, m.width), 0, 0)
    return canvas.convertToBlob({ type: 'image/png' })
  }

  function drop(): void {
    if (picture.value) URL.revokeObjectURL(picture.value.url)
    picture.value = null
    removeMask()
  }

  function remove(): void {
    drop()
    fields.value = startFields()
  }

  /** Throws a Failure when the file is no picture. */
  async function take(file: Blob, name: string, own: OwnPicture | null = null): Promise<void> {
    let bitmap: ImageBitmap
    try {
      bitmap = await createImageBitmap(file)
    } catch {
      throw new Failure(`${name} is no picture that can be read here: PNG, JPEG and WebP can.`, 0)
    }
    const understood = UNDERSTOOD.includes(file.type) ? file : await asPng(bitmap)
    drop()
    picture.value = { file: understood, url: URL.createObjectURL(understood), name, width: bitmap.width, height: bitmap.height,
      prompt: own?.prompt ?? '', isOwn: own !== null }
    bitmap.close()
  }

  async function takeOwn(own: OwnPicture): Promise<void> {
    await take(await pictureFile(own.url), own.name, own)
  }

  return { picture, fields, mask, isMasked, canUndo, maskChanged, beginMask, removeMask, maskFile, take, takeOwn, remove }
})
