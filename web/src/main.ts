import { createPinia } from 'pinia'
import PrimeVue from 'primevue/config'
import ToastService from 'primevue/toastservice'
import { createApp } from 'vue'

import App from './App.vue'
import './icons.css'
import './style.css'
import { theme } from './theme'

createApp(App)
  .use(createPinia())
  .use(PrimeVue, { theme: { preset: theme } })
  .use(ToastService)
  .mount('#app')
