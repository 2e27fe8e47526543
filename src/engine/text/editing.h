/* editing: what a prompt says at each step. AUTOMATIC1111's prompt editing ([from:to:when], [a|b]) and AND, before the
 * weights are read (prompt.h).
 *
 *   struct script s = {.steps = 20};
 *   if (script_add_prompt(&s, "a [cat:dog:0.5] AND the sea :0.4", err) ||
 *       script_add_text(&s, "blurry", err))
 *       ... script_release(&s)
 *   s.texts[s.rows[0].texts[call]]       what the first part says in the call'th run of the U-Net, from 0
 *
 * Each different text is in the script once, however often it comes back. Fails, with a sentence and the parameter
 * "prompt", on more parts, alternatives or texts than these. Grammar and counting are AUTOMATIC1111's; docs/prompts.md is
 * the description for users. */
#ifndef MYSTI_ENGINE_TEXT_EDITING_H
#define MYSTI_ENGINE_TEXT_EDITING_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SCRIPT_PARTS_MAX = 8,      /* joined by AND */
    SCRIPT_CHOICES_MAX = 1000, /* in one pair of brackets */
    SCRIPT_TEXTS_MAX = 128,
};

struct script_row {
    double weight;  /* of a part of the prompt; 1 */
    int16_t *texts; /* [steps + 1]: the number of the text of each run */
};

struct script {
    int steps; /* runs of the U-Net that a whole number or a fraction counts; set first */
    char **texts;
    int text_count;
    struct script_row rows[SCRIPT_PARTS_MAX + 1];
    int row_count;
};

/* A row for each part. */
int script_add_prompt(struct script *s, const char *prompt, struct err *err) MUST_CHECK;
/* One row; AND is a word like others. */
int script_add_text(struct script *s, const char *text, struct err *err) MUST_CHECK;
/* One row that says the same at each step, brackets and all. */
int script_add_plain(struct script *s, const char *text, struct err *err) MUST_CHECK;
void script_release(struct script *s);
/* A row's text in this run; runs beyond the last are like it. */
int script_text(const struct script *s, int row, int call);
/* Some row says something else at some step. */
bool script_changes(const struct script *s);

/* ---- one level lower, for tests ---- */

/* Appends what text says at step `step` (from 1) of `steps`. */
int editing_at(const char *text, int steps, int step, struct buf *ret,
               struct err *err) MUST_CHECK;

#endif
