/* parameters: the text that pictures carry about themselves, as AUTOMATIC1111 writes it:
 *
 *   a red boat on a lake
 *   Negative prompt: people
 *   Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model: name
 *
 * (base/png_text.h gets it out of the file.) Any text may come: it is what people find in the network.
 */
#ifndef MYSTI_SERVER_STORE_PARAMETERS_H
#define MYSTI_SERVER_STORE_PARAMETERS_H

#include <jansson.h>

/* docs/openapi.yaml, HistoryEntry.params: what the text says, under our names. A new reference, never NULL; text that
 * is not of that form is all prompt. The text is UTF-8. */
json_t *parameters_parse(const char *text);

#endif
