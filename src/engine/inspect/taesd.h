/* taesd: is a file a TAESD, the tiny VAE, under whichever of its names? Private to inspect/. */
#ifndef MYSTI_ENGINE_INSPECT_TAESD_H
#define MYSTI_ENGINE_INSPECT_TAESD_H

#include "engine/files/weights.h"

struct taesd_look {
    bool has_decoder, has_encoder;
    int64_t channels; /* of the latents that its decoder reads; 0: not known */
};

/* From the file's own names. */
void taesd_look(struct taesd_look *ret, const struct weights_file *file);
/* Would it decode? Opened as the VAE of a job is. ERR_BAD_FILE with what is wrong. */
int taesd_check(const char *path, struct err *err) MUST_CHECK;

#endif
