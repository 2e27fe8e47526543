import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

// The build goes beside the server, which serves it from there; `npm run dev` talks to a running server.
export default defineConfig({
  base: './',
  plugins: [vue()],
  build: { outDir: '../build/bin/public', emptyOutDir: true, chunkSizeWarningLimit: 700 },
  server: {
    proxy: Object.fromEntries(
      ['/v1', '/health', '/outputs'].map((path) => [path, process.env.MYSTI_SERVER ?? 'http://127.0.0.1:1234']),
    ),
  },
})
