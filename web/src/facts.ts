// What a picture says about itself, for people. The server's names are those of requests.
const names: [string, string][] = [
  ['negative_prompt', 'without'],
  ['model', 'model'],
  ['steps', 'steps'],
  ['sampler', 'sampler'],
  ['scheduler', 'schedule'],
  ['cfg_scale', 'guidance'],
  ['seed', 'seed'],
]

/** "512 × 512 · steps 20 · seed 7": what is known of it, in this order. The size is the file's, not the one it was first drawn at. */
export function factsOf(params: Record<string, unknown>, width: number, height: number): string {
  const size = width ? [`${width} × ${height}`] : []
  return [...size, ...names.filter(([key]) => params[key] !== undefined).map(([key, name]) => `${name} ${params[key]}`)].join(' · ')
}
