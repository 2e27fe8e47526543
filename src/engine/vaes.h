/* vaes: the VAE that a job names, in place of the model's own. Private to the engine.
 *
 *   if (model_take_vae(model, job->vae, err)) return -1;       before anything else is asked of the model
 *
 * The VAE's weights are packed in a store of their own: changing it keeps the text encoder and the U-Net. */
#ifndef MYSTI_ENGINE_VAES_H
#define MYSTI_ENGINE_VAES_H

#include "engine/model.h"

/* name: a file's or a network's folder's in the engine's VAE folder, "taesd" also for the pair taesd_decoder and
 * taesd_encoder; "none": the model's own; NULL or "automatic": the engine's for all jobs, else the model's own. The one before leaves memory, and
 * what was compiled with it; the one that the model has already, unchanged on disk, is cheap. A failure blames "vae" and
 * leaves the one before. */
int model_take_vae(struct engine_model *model, const char *name,
                   struct err *err) MUST_CHECK;
/* The path of such a file, or folder; free() it. ERR_INVALID of "vae": there is none. */
int vae_find(const struct engine *engine, const char *name, char **ret_path,
             struct err *err) MUST_CHECK;
/* The same for an estimate: what the model had, packed weights and all, is kept aside and comes back. Nothing is kept
 * where it has that VAE already. ret must be released by model_return_vae() in any case. */
struct borrowed_vae {
    bool is_other;
    struct other_vae *before;
    struct weight_store *store;
    struct vae vae;
};
int model_borrow_vae(struct engine_model *model, const char *name,
                     struct borrowed_vae *ret, struct err *err) MUST_CHECK;
void model_return_vae(struct engine_model *model, struct borrowed_vae *borrowed);
/* Its file's name; NULL: the model's own is in use. */
const char *vae_name(const struct engine_model *model);
void other_vae_close(struct other_vae *vae); /* NULL is fine */

#endif
