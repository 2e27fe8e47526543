/* edit: what is laid over a model's weights while a back end packs them. A LoRA is one; taken away again, the weights
 * are packed from the file as before, bit for bit.
 *
 *   backend->ops->edit(store, &edit);          what it touches, and what the one before touched, is out of date
 *   backend->ops->load(program, &err);         packs that anew, in its place
 *
 * Back ends ask edited_make() where they would have read a weight of the file. */
#ifndef MYSTI_ENGINE_GRAPH_EDIT_H
#define MYSTI_ENGINE_GRAPH_EDIT_H

#include "engine/files/weights.h"

/* All calls come from the thread that packs. */
struct weight_edit {
    bool (*touches)(void *user, const struct weight *weight);
    /* values [weight_count(weight)]: the weight's own on entry. Only for what is touched. */
    int (*apply)(void *user, const struct weight *weight, float *values,
                 struct err *err);
    void *user;
};

/* Is one of these touched? No edit is NULL and touches nothing; NULL among the weights is passed over. */
bool edit_touches(const struct weight_edit *edit, const struct weight *const *weights,
                  int count);

struct edited {
    struct weight weight;
    float *values;
};

/* The weight to read instead of `weight`: itself where nothing touches it, else `room`, in f32 on the heap. NULL, with
 * nothing to release, when the edit fails or there is no memory. */
const struct weight *edited_make(struct edited *room, const struct weight_edit *edit,
                                 const struct weight *weight, struct err *err);
void edited_release(struct edited *room);

#endif
