#include "engine/graph/edit.h"

#include "base/mem.h"

#include <stdlib.h>

bool edit_touches(const struct weight_edit *edit, const struct weight *const *weights,
                  int count)
{
    for (int i = 0; edit && i < count; i++)
        if (weights[i] && edit->touches(edit->user, weights[i]))
            return true;
    return false;
}

const struct weight *edited_make(struct edited *room, const struct weight_edit *edit,
                                 const struct weight *weight, struct err *err)
{
    size_t count = weight_count(weight);

    *room = (struct edited){.weight = *weight};
    if (!edit_touches(edit, &weight, 1))
        return weight;
    room->values = mem_try_alloc(count * sizeof(*room->values));
    if (!room->values) {
        err_set(err, ERR_NO_MEMORY, "no memory to change %s (%zu numbers)",
                weight->name, count);
        return NULL;
    }
    weight_to_f32(weight, 0, count, room->values);
    if (edit->apply(edit->user, weight, room->values, err)) {
        edited_release(room);
        return NULL;
    }
    room->weight.type = WEIGHT_F32;
    room->weight.data = (const unsigned char *)room->values;
    room->weight.bytes = count * sizeof(*room->values);
    room->weight.is_mapped = false;
    return &room->weight;
}

void edited_release(struct edited *room)
{
    free(room->values);
    room->values = NULL;
}
