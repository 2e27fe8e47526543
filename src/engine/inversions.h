/* inversions: the textual inversions that a job's prompts say: words that stand for vectors of their own, which the text
 * encoders read in place of rows of their token table. Private to the engine.
 *
 *   if (inversions_open(&inversions, model, job, &script, syntax, err)) return -1;
 *   prompt_read_words(&prompt, text, syntax, inversions_words(inversions), err);
 *   inversions_copy(inversions, encoder, rows);
 *   inversions_close(inversions);
 *
 * A word is the name of a file in the engine's embedding folder, without its ending, or one that a LoRA of the job brings
 * (lora/bundle.h). */
#ifndef MYSTI_ENGINE_INVERSIONS_H
#define MYSTI_ENGINE_INVERSIONS_H

#include "engine/model.h"

struct inversions;

/* Reads the folder, the LoRAs that the job's prompts ask for (what cannot be read of them is loras_open()'s to say), and
 * the files whose words the script says. In A1111's syntax a file for another family is no word, its
 * name stays text; in ComfyUI's, where a word is asked for by name, it is an error. ERR_BAD_FILE for a file that is broken,
 * and ERR_INVALID for more vectors than there is room for. */
int inversions_open(struct inversions **ret, const struct engine_model *model,
                    const struct engine_job *job, const struct script *script,
                    enum prompt_syntax syntax, struct err *err) MUST_CHECK;
void inversions_close(struct inversions *inversions); /* NULL is fine */

/* Tells about each. */
void inversions_tell(const struct inversions *inversions,
                     const struct engine_events *events);
struct prompt_words *inversions_words(struct inversions *inversions);
/* Vectors of all words together, and what is reserved for them: few different numbers, for each compiles anew. */
int inversions_rows(const struct inversions *inversions);
int inversions_room(int rows);
/* All vectors as text encoder `encoder` reads them: ret [room, width], zeros at the end */
void inversions_copy(const struct inversions *inversions, int encoder, float *ret);

#endif
