/* encode: from what a job's prompts say to the U-Net's keys and values.
 *
 * The prompts become a script (text/editing.h): rows, one per part of the prompt and one for the negative prompt, that
 * say one of a few texts in each run of the U-Net. The rows are the batch. Each text goes through the encoder once per
 * job, batch by batch.
 *
 * Where the script never changes, that batch is the rows and stays. Where it does, the weighed hidden states of all texts
 * are kept, and whenever a row says something else the keys and values are made again from them: that is under a
 * hundredth of a run of the U-Net, while keeping the keys and values themselves would take thirty times the memory. */
#include "base/mem.h"
#include "engine/inversions.h"
#include "engine/lora/tags.h"
#include "engine/run.h"

#include <math.h>
#include <string.h>

/* ---- what a job says ---- */

/* guided = u + scale (c - u): at 1 the part without the prompt cancels out. */
static bool needs_negative(const struct script *s, const struct plan_of_job *plan)
{
    return s->row_count > 1 || fabs(plan->guidance - 1) >= 1e-9 ||
           sampler_wants_uncond(plan->sampler);
}

static int write_prompts(const char *prompt, const char *negative,
                         const struct plan_of_job *plan, struct script *ret,
                         struct err *err)
{
    bool is_a1111 = plan->syntax == PROMPT_A1111;

    if (is_a1111 ? script_add_prompt(ret, prompt, err)
                 : script_add_plain(ret, prompt, err))
        return -1;
    if (!needs_negative(ret, plan))
        return 0;
    if (is_a1111 ? script_add_text(ret, negative, err)
                 : script_add_plain(ret, negative, err)) {
        if (err)
            snprintf(err->param, sizeof(err->param), "negative_prompt");
        return -1;
    }
    return 0;
}

/* The tags of LoRAs say how, not what. */
static int write_script(const struct engine_job *job, const struct plan_of_job *plan,
                        struct script *ret, struct err *err)
{
    char *prompt = lora_tags_strip(job->prompt);
    char *negative = lora_tags_strip(job->negative_prompt ? job->negative_prompt : "");
    int result;

    /* the second walk of a hires fix goes on where the first one ended */
    ret->steps =
        job->pass && job->pass->steps_before ? job->pass->steps_before : job->steps;
    ret->steps *= sampler_is_second_order(plan->sampler) ? 2 : 1;
    result = write_prompts(prompt, negative, plan, ret, err);
    free(prompt);
    free(negative);
    return result;
}

/* Is it the prompt that says this, or the negative prompt alone? */
static const char *who_says(const struct script *s, const struct plan_of_job *plan,
                            int text)
{
    for (int row = 0; row < plan->parts; row++)
        for (int call = 0; call <= s->steps; call++)
            if (script_text(s, row, call) == text)
                return "prompt";
    return "negative_prompt";
}

/* All texts are as long as the least common multiple: attending to something twice is the same as once, and so none
 * changes the others. */
static int count_chunks(const struct script *s, struct prompt_words *words,
                        struct plan_of_job *plan, struct err *err)
{
    int common = 1;

    for (int i = 0; i < s->text_count; i++) {
        struct prompt p;
        int before = common;

        if (prompt_read_words(&p, s->texts[i], plan->syntax, words, err)) {
            if (err)
                snprintf(err->param, sizeof(err->param), "%s", who_says(s, plan, i));
            return -1;
        }
        while (common % p.count)
            common += before;
        if (common > PROMPT_CHUNKS_MAX) {
            int chunks = p.count;

            prompt_release(&p);
            return err_set_param(
                err, ERR_INVALID, "prompt",
                "one of the prompts has %d chunks of 75 tokens and "
                "others %d, which are drawn with as %d; at most %d are "
                "possible: shorten one of them",
                chunks, before, common, PROMPT_CHUNKS_MAX);
        }
        prompt_release(&p);
    }
    plan->size.chunks = common;
    return 0;
}

int job_understand_prompts(const struct engine_model *model,
                           const struct engine_job *job, struct plan_of_job *plan,
                           struct err *err)
{
    struct script script = {0};
    struct inversions *inversions = NULL;
    int result = -1;

    plan->syntax = plan->dialect == DIALECT_COMFY ? PROMPT_COMFY : PROMPT_A1111;
    if (write_script(job, plan, &script, err))
        goto out;
    plan->size.batch = script.row_count;
    plan->parts = script.row_count > 1 ? script.row_count - 1 : 1;
    plan->kept_texts = script_changes(&script) ? script.text_count : 0;
    if (inversions_open(&inversions, model, job, &script, plan->syntax, err))
        goto out;
    plan->size.vectors = inversions_room(inversions_rows(inversions));
    result = count_chunks(&script, inversions_words(inversions), plan, err);
out:
    inversions_close(inversions);
    script_release(&script);
    return result;
}

/* ---- through the encoder ---- */

static size_t hidden_of_chunk(const struct run *run)
{
    return (size_t)TOKENIZER_CONTEXT * (size_t)run->model->checkpoint->text_width;
}

static size_t hidden_of_row(const struct run *run)
{
    return (size_t)run->plan.size.chunks * hidden_of_chunk(run);
}

/* The ids of each chunk of a prompt, again and again until there are enough. */
static void put_ids(const struct prompt *prompt, int chunks, const struct clip *clip,
                    int32_t *ids)
{
    /* this encoder's table may be longer than the vocabulary */
    int32_t longer = (int32_t)(clip->vocabulary - TOKENIZER_VOCABULARY);

    for (int i = 0; i < chunks; i++) {
        bool is_end = false;

        for (int t = 0; t < TOKENIZER_CONTEXT; t++) {
            int32_t id = prompt->chunks[i % prompt->count].ids[t];

            if (id >= TOKENIZER_VOCABULARY)
                id += longer;
            *ids++ = is_end ? clip->kind->pad : id;
            is_end |= id == TOKENIZER_EOS;
        }
    }
}

/* A prompt for each row of the batch, or one for all -> hidden */
static int run_encoders(struct run *run, const struct prompt *prompts, bool is_one,
                        struct err *err)
{
    const struct checkpoint *c = run->model->checkpoint;
    const struct picture_size *size = &run->plan.size;
    size_t row = (size_t)size->chunks * TOKENIZER_CONTEXT;
    int32_t *ids = run_at(run, run->memory.ids);
    float *rows = run_at(run, run->memory.rows);
    void *inputs[2 * FAMILY_TEXTS_MAX];
    int texts = c->family->text_count;

    for (int e = 0; e < texts; e++) {
        inputs[e] = ids;
        for (int b = 0; b < size->batch; b++, ids += row)
            put_ids(&prompts[is_one ? 0 : b], size->chunks, &c->clips[e], ids);
        inputs[texts + e] = rows;
        rows += size->vectors * c->clips[e].width;
    }
    return run_stage(
        run, STAGE_ENCODE, inputs,
        (void *[]){run_at(run, run->memory.hidden), run_at(run, run->memory.states)},
        err);
}

static void weigh(struct run *run, const struct prompt *prompt, float *hidden,
                  const float *empty)
{
    const struct checkpoint *c = run->model->checkpoint;
    struct prompt_hidden part = {.pitch = c->text_width};

    for (int i = 0; i < run->plan.size.chunks; i++, hidden += hidden_of_chunk(run)) {
        part.values = hidden;
        part.empty = empty;
        for (int e = 0; e < c->family->text_count; e++) {
            part.width = c->clips[e].width;
            prompt_weigh(&prompt->chunks[i % prompt->count], run->plan.syntax, &part);
            part.values += part.width;
            part.empty += part.empty ? part.width : 0;
        }
    }
}

static bool is_weighted(const struct prompt *prompt)
{
    for (int i = 0; i < prompt->count; i++)
        if (prompt->chunks[i].is_weighted)
            return true;
    return false;
}

/* What the text encoders make of a chunk without text; NULL: err. */
static float *encode_nothing(struct run *run, struct err *err)
{
    float *empty = NULL;
    struct prompt nothing;

    if (prompt_read(&nothing, "", run->plan.syntax, err))
        return NULL;
    if (run_encoders(run, &nothing, true, err) == 0) {
        empty = mem_alloc(hidden_of_chunk(run) * sizeof(*empty));
        memcpy(empty, run_at(run, run->memory.hidden),
               hidden_of_chunk(run) * sizeof(*empty));
    }
    prompt_release(&nothing);
    return empty;
}

static float *label_of_row(const struct run *run, int row)
{
    float *labels = run_at(run, run->memory.labels);

    return labels +
           (size_t)row * (size_t)unet_label_width(run->model->checkpoint->unet);
}

/* The state where the text of the first chunk ends -> the summary in the row's label */
static void summarise(struct run *run, const struct prompt *prompt, int row)
{
    const struct clip *clip = run->model->checkpoint->summary;
    size_t end = (size_t)row * (size_t)run->plan.size.chunks * TOKENIZER_CONTEXT;
    const float *states = run_at(run, run->memory.states);

    for (int t = 0; prompt->chunks[0].ids[t] != TOKENIZER_EOS; t++)
        end++;
    clip_summarise(clip, states + end * (size_t)clip->width, label_of_row(run, row));
}

/* One prompt per row of the batch -> ids -> hidden, weighed; summaries are not weighed */
static int encode_batch(struct run *run, const struct prompt *prompts,
                        const float *empty, struct err *err)
{
    float *hidden = run_at(run, run->memory.hidden);

    if (run_encoders(run, prompts, false, err))
        return -1;
    for (int b = 0; b < run->plan.size.batch; b++) {
        weigh(run, &prompts[b], hidden + (size_t)b * hidden_of_row(run), empty);
        if (run->model->checkpoint->summary)
            summarise(run, &prompts[b], b);
    }
    return 0;
}

/* The texts with these numbers, one per row of the batch. */
static int encode_texts(struct run *run, const int *numbers, struct err *err)
{
    struct prompt prompts[SCRIPT_PARTS_MAX + 1] = {{0}};
    float *empty = NULL;
    bool weighted = false;
    int result = 0;

    for (int b = 0; b < run->plan.size.batch && !result; b++) {
        result =
            prompt_read_words(&prompts[b], run->script.texts[numbers[b]],
                              run->plan.syntax, inversions_words(run->inversions), err);
        weighted |= !result && is_weighted(&prompts[b]);
    }
    if (!result && weighted && run->plan.syntax == PROMPT_COMFY)
        result = (empty = encode_nothing(run, err)) ? 0 : -1;
    if (!result)
        result = encode_batch(run, prompts, empty, err);
    free(empty);
    for (int b = 0; b < run->plan.size.batch; b++)
        prompt_release(&prompts[b]);
    return result;
}

static size_t summary_width(const struct run *run)
{
    const struct clip *clip = run->model->checkpoint->summary;

    return clip ? (size_t)clip->summary_width : 0;
}

/* What the encoders made of one text, between a row of the batch and where all texts are kept. */
static void keep_row(struct run *run, int row, int text)
{
    size_t hidden = hidden_of_row(run), summary = summary_width(run);
    const float *from = run_at(run, run->memory.hidden);
    float *kept = run_at(run, run->memory.texts);
    float *summaries = run_at(run, run->memory.summaries);

    memcpy(kept + (size_t)text * hidden, from + (size_t)row * hidden,
           hidden * sizeof(*kept));
    if (summary)
        memcpy(summaries + (size_t)text * summary, label_of_row(run, row),
               summary * sizeof(*summaries));
}

static void fill_row(struct run *run, int row, int text)
{
    size_t hidden = hidden_of_row(run), summary = summary_width(run);
    float *to = run_at(run, run->memory.hidden);
    const float *kept = run_at(run, run->memory.texts);
    const float *summaries = run_at(run, run->memory.summaries);

    memcpy(to + (size_t)row * hidden, kept + (size_t)text * hidden,
           hidden * sizeof(*kept));
    if (summary)
        memcpy(label_of_row(run, row), summaries + (size_t)text * summary,
               summary * sizeof(*summaries));
}

/* hidden, batch by batch, to where all texts are kept */
static int encode_all_texts(struct run *run, struct err *err)
{
    int count = run->script.text_count, batch = run->plan.size.batch;

    for (int first = 0; first < count; first += batch) {
        int numbers[SCRIPT_PARTS_MAX + 1], some = count - first;

        if (some > batch)
            some = batch;
        for (int b = 0; b < batch; b++)
            numbers[b] = first + b % some;
        if (encode_texts(run, numbers, err))
            return -1;
        for (int b = 0; b < some; b++)
            keep_row(run, b, first + b);
    }
    return 0;
}

/* A1111 tells SDXL nothing at all, rather than what the encoders make of "", where there is no negative prompt. */
static void silence(struct run *run)
{
    int negative = run->plan.parts;
    float *hidden = run_at(run, run->memory.hidden);

    if (!run->model->checkpoint->family->is_sdxl ||
        run->plan.dialect != DIALECT_A1111 || negative >= run->plan.size.batch ||
        *run->script.texts[run->said[negative]])
        return;
    memset(hidden + (size_t)negative * hidden_of_row(run), 0,
           hidden_of_row(run) * sizeof(*hidden));
    memset(label_of_row(run, negative), 0, summary_width(run) * sizeof(*hidden));
}

/* hidden, and what SDXL is told beside it -> keys and values, and what the U-Net makes of that */
static int make_contexts(struct run *run, struct err *err)
{
    int count = run->memory.context_count;
    void **outputs = mem_alloc((size_t)(count + 1) * sizeof(*outputs));
    void *inputs[] = {run_at(run, run->memory.hidden), run_at(run, run->memory.labels)};
    int result;

    silence(run);
    for (int i = 0; i < count; i++)
        outputs[i] = run_at(run, run->memory.contexts[i]);
    outputs[count] = run_at(run, run->memory.label);
    result = run_stage(run, STAGE_CONTEXT, inputs, outputs, err);
    free(outputs);
    return result;
}

/* The size that the training picture had, where it was cropped, and what size is wanted; left out, as if it had been of the
 * wanted size and not cropped. */
static void tell_sizes(struct run *run)
{
    const int own[ENGINE_SIZES] = {run->job->height, run->job->width, 0, 0,
                                   run->job->height, run->job->width};
    enum { HALF = CHECKPOINT_SINUSOIDS / 2 };

    for (int b = 0; b < run->plan.size.batch; b++) {
        float *to = label_of_row(run, b) + summary_width(run);

        for (int s = 0; s < ENGINE_SIZES; s++, to += CHECKPOINT_SINUSOIDS)
            for (int i = 0; i < HALF; i++) {
                int size = run->job->sizes[s] < 0 ? own[s] : run->job->sizes[s];
                double angle = size * exp(-log(10000) * i / HALF);

                to[i] = (float)cos(angle);
                to[HALF + i] = (float)sin(angle);
            }
    }
}

/* Opened again: nothing of a job is kept between its plan and its run. */
static int take_inversions(struct run *run, struct err *err)
{
    const struct checkpoint *c = run->model->checkpoint;
    float *rows = run_at(run, run->memory.rows);

    if (inversions_open(&run->inversions, run->model, run->job, &run->script,
                        run->plan.syntax, err))
        return -1;
    if (inversions_room(inversions_rows(run->inversions)) != run->plan.size.vectors)
        return err_set(err, ERR_CONFLICT,
                       "the textual inversions changed while the job began: ask again");
    inversions_tell(run->inversions, run->events);
    for (int e = 0; e < c->family->text_count; e++) {
        inversions_copy(run->inversions, e, rows);
        rows += run->plan.size.vectors * c->clips[e].width;
    }
    return 0;
}

/* For models with guidance built in: the scale as diffusers tells it, sines first. */
static void tell_guide(struct run *run)
{
    int half = (int)unet_guide_width(run->model->checkpoint->unet) / 2;
    float *guide = run_at(run, run->memory.guide);

    for (int i = 0; i < half; i++) {
        double angle =
            1000 * (run->job->cfg_scale - 1) * exp(-log(10000) * i / fmax(1, half - 1));

        guide[i] = (float)sin(angle);
        guide[half + i] = (float)cos(angle);
    }
}

int run_encode(struct run *run, struct err *err)
{
    if (write_script(run->job, &run->plan, &run->script, err) ||
        take_inversions(run, err))
        return -1;
    if (run->model->checkpoint->summary)
        tell_sizes(run);
    tell_guide(run);
    for (int b = 0; b < run->plan.size.batch; b++)
        run->said[b] = run->plan.kept_texts ? -1 : script_text(&run->script, b, 0);
    if (run->plan.kept_texts)
        return encode_all_texts(run, err);
    return encode_texts(run, run->said, err) || make_contexts(run, err) ? -1 : 0;
}

int run_say(struct run *run, int call, struct err *err)
{
    bool is_new = false;

    for (int b = 0; b < run->plan.size.batch; b++) {
        int text = script_text(&run->script, b, call);

        if (text == run->said[b])
            continue;
        fill_row(run, b, text);
        run->said[b] = text;
        is_new = true;
    }
    return is_new ? make_contexts(run, err) : 0;
}
