/* What a fuzz target defines; returns 0. Anything that must hold and does not is abort(). */
#ifndef MYSTI_FUZZ_FUZZ_H
#define MYSTI_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
