// What somebody typed outlives a reload of this tab, and nothing else: the next tab begins anew.
import { watch, type Ref } from 'vue'

/** What was kept of an object, over what it would be: keys that are not known any more are dropped. */
export function restored<T extends object>(fresh: T, kept: string | null): T {
  try {
    const old = JSON.parse(kept ?? '{}') as Partial<T>
    return Object.fromEntries(Object.entries(fresh).map(([key, value]) => [key, old[key as keyof T] ?? value])) as T
  } catch {
    return fresh
  }
}

export function keep<T extends object>(name: string, value: Ref<T>): void {
  value.value = restored(value.value, sessionStorage.getItem(name))
  watch(value, (now) => sessionStorage.setItem(name, JSON.stringify(now)), { deep: true })
}
