// PrimeVue's Aura in indigo, with the components that this page has: all of Aura would be 65 KB
// more. A component that is missing here has no colours, so a test compares this list with what the page imports.
import { definePreset } from '@primeuix/themes'
import base from '@primeuix/themes/aura/base'
import button from '@primeuix/themes/aura/button'
import dialog from '@primeuix/themes/aura/dialog'
import iconfield from '@primeuix/themes/aura/iconfield'
import inputnumber from '@primeuix/themes/aura/inputnumber'
import inputtext from '@primeuix/themes/aura/inputtext'
import message from '@primeuix/themes/aura/message'
import progressbar from '@primeuix/themes/aura/progressbar'
import ripple from '@primeuix/themes/aura/ripple'
import select from '@primeuix/themes/aura/select'
import tag from '@primeuix/themes/aura/tag'
import textarea from '@primeuix/themes/aura/textarea'
import toast from '@primeuix/themes/aura/toast'
import toggleswitch from '@primeuix/themes/aura/toggleswitch'
import virtualscroller from '@primeuix/themes/aura/virtualscroller'

const shades = [50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 950]

export const components = {
  button, dialog, iconfield, inputnumber, inputtext, message, progressbar, ripple, select, tag, textarea, toast, toggleswitch, virtualscroller,
}

export const theme = definePreset(
  { ...base, components },
  { semantic: { primary: Object.fromEntries(shades.map((shade) => [shade, `{indigo.${shade}}`])) } },
)
