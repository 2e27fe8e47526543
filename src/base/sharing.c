/* Why these numbers (measured with tests/bench/together.py; ARCHITECTURE.md has what was rejected):
 *
 * On a processor weight decides. Nice 12 weighs 70 against 1024: beside text a picture gets 6 % of each core that both
 * want, which is its floor, and all of those that text leaves; text keeps its tokens, because a thread of it waits
 * at a barrier for each other one that a picture's slice has pushed aside. SCHED_IDLE weighs 3 and would be standing
 * still. Batch: a picture's thread that wakes does not cut in.
 *
 * A graphics card knows no weights: two processes that want it take turns, and a step of a picture is long beside a
 * token. There the picture worker leaves three quarters of the time between its steps, but only while text runs. On a
 * processor it need not rest: weights do the same without a pause that nobody uses. */
#include "base/sharing.h"

#include <string.h>

static const struct policy {
    const char *word;
    struct sharing_place picture;
    int rest_percent[2]; /* by enum sharing_device */
    bool text_gives_way;
} policies[] = {
    [SHARING_TEXT_FIRST] = {"text-first", {12, true}, {0, 75}, false},
    [SHARING_EQUAL] = {"equal", {0, false}, {0, 0}, false},
    [SHARING_IMAGE_FIRST] = {"image-first", {0, false}, {0, 0}, true},
};

const char *sharing_word(enum sharing sharing)
{
    return policies[sharing].word;
}

int sharing_parse(const char *word, const char *as, enum sharing *ret, struct err *err)
{
    for (size_t i = 0; i < sizeof(policies) / sizeof(*policies); i++) {
        if (strcmp(word, policies[i].word) == 0) {
            *ret = (enum sharing)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID,
                   "%s must be text-first, equal or image-first, not \"%.60s\"", as,
                   word);
}

struct sharing_place sharing_picture_place(enum sharing sharing)
{
    return policies[sharing].picture;
}

int sharing_rest_percent(enum sharing sharing, enum sharing_device device)
{
    return policies[sharing].rest_percent[device];
}

bool sharing_text_gives_way(enum sharing sharing)
{
    return policies[sharing].text_gives_way;
}
