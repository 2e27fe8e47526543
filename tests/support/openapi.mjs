// Holds answers against docs/openapi.yaml. Everything that the server answers in the tests goes through here: an answer
// that the description does not know (a status, a missing key, another type) fails the test that got it.
import Ajv2020 from 'ajv/dist/2020.js';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const here = dirname(fileURLToPath(import.meta.url));
export const openapi = parse(readFileSync(join(here, '../../docs/openapi.yaml'), 'utf8'));

const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema(openapi, 'openapi');

const routes = Object.keys(openapi.paths).map((path) => ({
  path,
  pattern: new RegExp(`^${path.replace('/outputs/{name}', '/outputs/.+').replace(/\{\w+\}/g, '[^/]+')}$`),
}));

// ~1 and ~0 are JSON pointer's slashes and tildes
const pointer = (...parts) => parts.map((p) => encodeURIComponent(String(p).replace(/~/g, '~0').replace(/\//g, '~1'))).join('/');

function resolve(node, at) {
  while (node?.$ref) {
    at = node.$ref.slice(2);
    node = at.split('/').reduce((o, key) => o[decodeURIComponent(key).replace(/~1/g, '/').replace(/~0/g, '~')], openapi);
  }
  return [node, at];
}

function compare(at, value, what) {
  const validate = ajv.getSchema(`openapi#/${at}`);
  if (!validate(value))
    throw new Error(`${what}: not as docs/openapi.yaml says: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value)?.slice(0, 600)}`);
}

// Errors that any route may answer, and paths that are no routes, have one shape.
const generalError = 'components/schemas/Error';

export function checkAnswer(method, path, status, contentType, json) {
  const what = `${method} ${path} -> ${status}`;
  const route = routes.find((r) => r.pattern.test(path.split('?')[0].replace(/(.)\/$/, '$1')));
  const operation = route && openapi.paths[route.path][method.toLowerCase()];
  if (!operation || [401, 403, 405, 408, 415, 431].includes(status)) {
    if (status < 400) throw new Error(`${what}: docs/openapi.yaml has no such route`);
    return compare(generalError, json, what);
  }
  const [response, at] = resolve(operation.responses[status],
    pointer('paths', route.path, method.toLowerCase(), 'responses', status));
  if (!response) throw new Error(`${what}: docs/openapi.yaml does not list this status\n${JSON.stringify(json)?.slice(0, 600)}`);
  const type = contentType.split(';')[0];
  if (!response.content?.[type]) throw new Error(`${what}: docs/openapi.yaml does not list ${type}`);
  return compare(`${at}/${pointer('content', type, 'schema')}`, json, what);
}

export function checkSchema(name, value) {
  compare(`components/schemas/${name}`, value, name);
}
