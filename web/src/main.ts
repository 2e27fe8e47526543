import Aura from '@primeuix/themes/aura'
import { createPinia } from 'pinia'
import 'primeicons/primeicons.css'
import PrimeVue from 'primevue/config'
import ToastService from 'primevue/toastservice'
import { createApp } from 'vue'

import App from './App.vue'
import './style.css'

createApp(App)
  .use(createPinia())
  .use(PrimeVue, { theme: { preset: Aura } })
  .use(ToastService)
  .mount('#app')
