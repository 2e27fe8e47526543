import { definePreset } from '@primeuix/themes'
import Aura from '@primeuix/themes/aura'
import { createPinia } from 'pinia'
import 'primeicons/primeicons.css'
import PrimeVue from 'primevue/config'
import ToastService from 'primevue/toastservice'
import { createApp } from 'vue'

import App from './App.vue'
import './style.css'

const shades = [50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 950]
const theme = definePreset(Aura, {
  semantic: { primary: Object.fromEntries(shades.map((shade) => [shade, `{indigo.${shade}}`])) },
})

createApp(App)
  .use(createPinia())
  .use(PrimeVue, { theme: { preset: theme } })
  .use(ToastService)
  .mount('#app')
