/* The options of mysti_server, and how a value gets from text into struct config and back.
 *
 * One table instead of a parser per source: a flag, a variable and a key of the file are the same thing in three
 * spellings, so a range is checked once and a mistake gets the same sentence everywhere. getopt and a
 * configuration library were rejected for that: neither can name the nearest known option, and each knows
 * only one of the three sources. */
#include "server/config/options.h"

#include "base/mem.h"
#include "base/sharing.h"
#include "base/str.h"
#include "server/memory/cache_type.h"

#include <inttypes.h>
#include <stddef.h>
#include <strings.h>

#define F(field) offsetof(struct config, field)
#define PORT_MAX 65535

const struct option options[] = {
    {"listen-ip", "-l", OPTION_TEXT, F(listen_ip), 0, 0, "127.0.0.1", NULL, "ADDRESS",
     "address to serve on; 0.0.0.0 or :: for all", "Where it listens", OPTION_AT_START},
    {"listen-port", NULL, OPTION_NUMBER, F(listen_port), 0, PORT_MAX, "1234", NULL,
     "PORT", "port to serve on; 0: any free one", NULL, OPTION_AT_START},
    {"sd-port", NULL, OPTION_NUMBER, F(sd_port), 0, PORT_MAX, "1235", NULL, "PORT",
     "port of the picture worker, on loopback; 0: any free one", NULL, OPTION_AT_START},
    {"llm-port", NULL, OPTION_NUMBER, F(llm_port), 0, PORT_MAX, "1236", NULL, "PORT",
     "port of the text worker, on loopback; 0: any free one", NULL, OPTION_AT_START},
    {"cors-origin", NULL, OPTION_LIST, F(cors_origins), 0, 0, "", NULL, "ORIGIN",
     "a web origin that may call, besides those of this machine; repeatable", NULL,
     OPTION_LIVE},
    {"allowed-host", NULL, OPTION_LIST, F(allowed_hosts), 0, 0, "", NULL, "NAME",
     "a name that clients may call this server by, besides this machine's own; "
     "repeatable",
     NULL, OPTION_LIVE},
    {"key-file", NULL, OPTION_PATH, F(key_file), 0, 0, "", NULL, "FILE",
     "keys that clients must have, see --new-key. Default: keys in --home, if it is "
     "there",
     NULL, OPTION_AT_START},

    {"model", "-m", OPTION_MODEL, F(model), 0, 0, "", NULL, "FILE",
     "a model of either kind: the file itself says which", "Models", OPTION_AT_START},
    {"llm-model", "-lm", OPTION_MODEL, F(llm_model), 0, 0, "", NULL, "FILE",
     "text model (GGUF) to load; none: start without. Default: the one loaded last, "
     "else the starter",
     NULL, OPTION_AT_START},
    {"diffusion-model", NULL, OPTION_MODEL, F(diffusion_model), 0, 0, "", NULL, "FILE",
     "picture model (safetensors, GGUF, ckpt, a diffusers folder) to load; none: start "
     "without. Default: "
     "the one loaded last, else the starter",
     NULL, OPTION_AT_START},
    {"model-dir", NULL, OPTION_PATH, F(model_dir), 0, 0, "", NULL, "FOLDER",
     "folder with your models. Default: models in --home", NULL, OPTION_AT_START},

    {"lora-dir", NULL, OPTION_PATH, F(lora_dir), 0, 0, "", NULL, "FOLDER",
     "folder with your LoRAs, for <lora:name:1> in prompts. Default: loras in "
     "--model-dir",
     NULL, OPTION_AT_LOAD},
    {"upscaler-dir", NULL, OPTION_PATH, F(upscaler_dir), 0, 0, "", NULL, "FOLDER",
     "folder with your upscalers (ESRGAN). Default: upscalers in --model-dir", NULL,
     OPTION_AT_LOAD},
    {"embedding-dir", NULL, OPTION_PATH, F(embedding_dir), 0, 0, "", NULL, "FOLDER",
     "folder with your textual inversions, whose names are words of prompts. Default: "
     "embeddings in --model-dir",
     NULL, OPTION_AT_LOAD},
    {"vae", NULL, OPTION_TEXT, F(vae), 0, 0, "", NULL, "NAME",
     "the VAE of pictures that name none, a file in --vae-dir. Default: the model's "
     "own",
     NULL, OPTION_AT_LOAD},
    {"vae-dir", NULL, OPTION_PATH, F(vae_dir), 0, 0, "", NULL, "FOLDER",
     "folder with VAEs that requests may name in place of a model's own. Default: vae "
     "in "
     "--model-dir",
     NULL, OPTION_AT_LOAD},

    {"home", NULL, OPTION_PATH, F(home), 0, 0, "", NULL, "FOLDER",
     "state: what is loaded, jobs, gallery. Default: $XDG_STATE_HOME/mysti", "Folders",
     OPTION_AT_START},
    {"output-dir", NULL, OPTION_PATH, F(output_dir), 0, 0, "", NULL, "FOLDER",
     "folder for pictures. Default: outputs in --home", NULL, OPTION_AT_START},
    {"config", NULL, OPTION_PATH, F(config_file), 0, 0, "", NULL, "FILE",
     "YAML file with the same names as these options", NULL, OPTION_AT_START},

    {"llm-threads", NULL, OPTION_NUMBER, F(llm_threads), 0, 1024, "0", NULL, "N",
     "threads of the text worker; 0: one for a small model, else one per physical core",
     "Text worker", OPTION_AT_LOAD},
    {"llm-context", NULL, OPTION_NUMBER, F(llm_context), 0, 1 << 24, "0", NULL,
     "TOKENS",
     "context of each request; 0: what the model was trained for, at most 8192", NULL,
     OPTION_AT_LOAD},
    {"llm-slots", NULL, OPTION_NUMBER, F(llm_slots), 1, 4096, "2", NULL, "N",
     "text requests answered at the same time, by each text model; llama-server takes "
     "256 "
     "at most, and parking saves the contexts of the first 64",
     NULL, OPTION_AT_LOAD},
    {"llm-cache-type", NULL, OPTION_CHOICE, F(llm_cache_type), 0, 0, "f16",
     CACHE_TYPE_WORDS, "TYPE",
     "type of the keys and values of a context: f16, or a smaller one for a longer "
     "context in the same memory, a little less exact: q8_0, q5_1, q5_0, q4_1, q4_0",
     NULL, OPTION_AT_LOAD},
    {"llm-idle-timeout", NULL, OPTION_NUMBER, F(llm_idle_timeout_s), 0, 31536000, "0",
     NULL, "SECONDS",
     "a text model that nobody uses for so long leaves memory until the next request "
     "for "
     "it; 0: never",
     NULL, OPTION_LIVE},
    {"kv-limit", NULL, OPTION_SIZE, F(kv_limit), 0, INT64_C(1) << 50, "4G", NULL,
     "BYTES", "saved contexts of parked text models, all together; the oldest go first",
     NULL, OPTION_LIVE},
    {"kv-files", NULL, OPTION_NUMBER, F(kv_files), 0, 10000, "64", NULL, "N",
     "how many of them, one for each slot", NULL, OPTION_LIVE},
    {"llm-resident", NULL, OPTION_NUMBER, F(llm_resident), 1, 16, "3", NULL, "N",
     "text models in memory at the same time, where it is enough for them; the one "
     "used "
     "least recently gives way to one more",
     NULL, OPTION_LIVE},
    {"llm-gpu-layers", NULL, OPTION_NUMBER, F(llm_gpu_layers), -1, 10000, "-1", NULL,
     "N", "layers on the GPU; -1: as many as fit", NULL, OPTION_AT_LOAD},
    {"llama-server", NULL, OPTION_PATH, F(llama_server), 0, 0, "", NULL, "PROGRAM",
     "which llama-server to use. Default: the one in PATH, else the one fetched by the "
     "build",
     NULL, OPTION_AT_LOAD},

    {"sd-threads", NULL, OPTION_NUMBER, F(sd_threads), 0, 1024, "0", NULL, "N",
     "threads of the picture worker; 0: one per physical core", "Picture worker",
     OPTION_AT_LOAD},
    {"sd-backend", NULL, OPTION_CHOICE, F(sd_backend), 0, 0, "auto", "auto|dnnl|ref",
     NULL, "what computes: auto takes dnnl where it was built in", NULL,
     OPTION_AT_LOAD},
    {"sd-weights", NULL, OPTION_CHOICE, F(sd_weights), 0, 0, "auto", "auto|int8", NULL,
     "int8: picture models take half of the memory, and draw slightly other pictures",
     NULL, OPTION_AT_LOAD},

    {"preview-method", NULL, OPTION_CHOICE, F(preview_method), 0, 0, "latent2rgb",
     "latent2rgb|taesd", NULL,
     "previews of pictures that are being drawn: colours for next to nothing, or "
     "decoded by "
     "taesd (of SDXL taesdxl) in --vae-dir, where it is there",
     NULL, OPTION_AT_LOAD},

    {"sharing", NULL, OPTION_CHOICE, F(sharing), 0, 0, "text-first", SHARING_WORDS,
     "POLICY",
     "who goes first when text and pictures want the same processor or graphics card: "
     "text-first, equal or image-first; neither ever stands still",
     "Sharing", OPTION_LIVE},

    {"memory-policy", NULL, OPTION_CHOICE, F(memory_policy), 0, 0, "automatic",
     "automatic|ask|manual", "POLICY",
     "what happens when something does not fit: models give way by themselves "
     "(automatic), after somebody agreed (ask: POST /v1/memory/leave), or never "
     "(manual)",
     "Memory", OPTION_LIVE},
    {"memory-margin", NULL, OPTION_SIZE, F(memory_margin), 0, INT64_C(1) << 50, "256M",
     NULL, "BYTES", "kept free on each device", NULL, OPTION_LIVE},
    {"memory-quiet", NULL, OPTION_NUMBER, F(memory_quiet_s), 0, 86400, "30", NULL,
     "SECONDS",
     "what gave way comes back by itself when there is room and nothing worked for so "
     "long",
     NULL, OPTION_LIVE},
    {"simulate-device", NULL, OPTION_LIST, F(simulated_devices), 0, 0, "", NULL,
     "NAME=BYTES",
     "plan as if the machine had this: ram=8G for its memory, any other name for a "
     "graphics card; repeatable",
     NULL, OPTION_AT_START},

    {"first-byte-timeout", NULL, OPTION_NUMBER, F(first_byte_timeout_s), 1, 86400,
     "300", NULL, "SECONDS", "how long a worker's answer may take to begin", "Limits",
     OPTION_LIVE},
    {"head-timeout", NULL, OPTION_NUMBER, F(head_timeout_s), 1, 3600, "15", NULL,
     "SECONDS", "how long the head of a request may take to arrive", NULL, OPTION_LIVE},
    {"idle-timeout", NULL, OPTION_NUMBER, F(idle_timeout_s), 1, 86400, "75", NULL,
     "SECONDS", "how long a connection without a request is kept", NULL, OPTION_LIVE},
    {"body-limit", NULL, OPTION_SIZE, F(body_limit), 1024, INT64_C(1) << 40, "64M",
     NULL, "BYTES", "largest request body", NULL, OPTION_LIVE},
    {"header-limit", NULL, OPTION_SIZE, F(header_limit), 1024, 16 << 20, "32K", NULL,
     "BYTES", "largest request head", NULL, OPTION_LIVE},
    {"max-connections", NULL, OPTION_NUMBER, F(max_connections), 1, 1000000, "4096",
     NULL, "N", "connections at the same time", NULL, OPTION_LIVE},
    {"queue-limit", NULL, OPTION_NUMBER, F(queue_limit), 1, 100000, "64", NULL, "N",
     "pictures that may wait; one more is refused", NULL, OPTION_LIVE},
    {"text-queue-limit", NULL, OPTION_NUMBER, F(text_queue_limit), 1, 100000, "1024",
     NULL, "N", "text requests that may wait for one model; one more is refused", NULL,
     OPTION_LIVE},
    {"text-queue-age", NULL, OPTION_NUMBER, F(text_queue_age_s), 0, 3600, "10", NULL,
     "SECONDS",
     "how long requests for models in memory may overtake one whose model has to take "
     "their place; 0: never",
     NULL, OPTION_LIVE},
    {"client-queue-limit", NULL, OPTION_NUMBER, F(client_queue_limit), 1, 100000, "64",
     NULL, "N", "pictures of one client, running and waiting; one more is refused",
     NULL, OPTION_LIVE},
    {"queue-age", NULL, OPTION_NUMBER, F(queue_age_s), 0, 86400, "60", NULL, "SECONDS",
     "how long a picture may be overtaken by others whose model is loaded", NULL,
     OPTION_LIVE},
    {"job-history", NULL, OPTION_NUMBER, F(job_history), 0, 1000000, "1000", NULL, "N",
     "ended jobs that are remembered", NULL, OPTION_LIVE},
    {"max-image-side", NULL, OPTION_NUMBER, F(max_image_side), 64, 16384, "2048", NULL,
     "PIXELS", "largest width or height of a picture", NULL, OPTION_LIVE},
    {"max-image-count", NULL, OPTION_NUMBER, F(max_image_count), 1, 1000, "10", NULL,
     "N", "most pictures of one request", NULL, OPTION_LIVE},
    {"max-steps", NULL, OPTION_NUMBER, F(max_steps), 1, 10000, "150", NULL, "N",
     "most denoise steps of one picture", NULL, OPTION_LIVE},

    {"verbose", "-v", OPTION_SWITCH, F(verbose), 0, 1, "false", NULL, NULL, "log more",
     "Other", OPTION_LIVE},
    {"sd-worker-program", NULL, OPTION_PATH, F(sd_worker_program), 0, 0, "", NULL,
     "PROGRAM", "run this as the picture worker (for tests)", NULL, OPTION_AT_START},
    {"llm-worker-program", NULL, OPTION_PATH, F(llm_worker_program), 0, 0, "", NULL,
     "PROGRAM", "run this as the text worker (for tests)", NULL, OPTION_AT_START},
};
const size_t option_count = sizeof(options) / sizeof(*options);

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (*a != *b && !(*a == '_' && *b == '-') && !(*a == '-' && *b == '_'))
            return false;
    return *a == *b;
}

const struct option *option_find(const char *name)
{
    for (size_t i = 0; i < option_count; i++)
        if (same_name(options[i].name, name))
            return &options[i];
    return NULL;
}

int option_unknown(const char *name, const char *as, struct err *err)
{
    const char *names[sizeof(options) / sizeof(*options)];
    const char *near;

    for (size_t i = 0; i < option_count; i++)
        names[i] = options[i].name;
    near = str_nearest(name, names, option_count);
    if (near)
        return err_set(err, ERR_INVALID, "unknown option %.80s; did you mean %s%s?", as,
                       as[0] == '-' ? "--" : "", near);
    return err_set(err, ERR_INVALID, "unknown option %.80s; --help lists them all", as);
}

static int set_choice(const char *value, const struct option *o, const char *as,
                      char **field, struct err *err)
{
    size_t n = strlen(value);

    for (const char *word = o->choices; word;) {
        const char *end = strchrnul(word, '|');

        if (n == (size_t)(end - word) && strncmp(word, value, n) == 0) {
            free(*field);
            *field = mem_strdup(value);
            return 0;
        }
        word = *end ? end + 1 : NULL;
    }
    return err_set(err, ERR_INVALID, "%s must be one of %s, not \"%.60s\"", as,
                   o->choices, value);
}

static int set_switch(const char *value, const char *as, bool *field, struct err *err)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};

    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
            *field = strcasecmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "%s must be true or false, not \"%.60s\"", as,
                   value);
}

static int add_items(const char *value, const char *as, struct config_list *list,
                     struct err *err)
{
    for (const char *item = value; *item;) {
        const char *end = strchrnul(item, ',');

        if (list->count == CONFIG_LIST_MAX)
            return err_set(err, ERR_INVALID, "%s: more than %d entries", as,
                           CONFIG_LIST_MAX);
        while (item < end && *item == ' ')
            item++;
        if (end > item)
            list->items[list->count++] = mem_strndup(item, (size_t)(end - item));
        item = *end ? end + 1 : end;
    }
    return 0;
}

static char *expand_home(const char *path)
{
    const char *home = getenv("HOME");

    if (str_has_prefix(path, "~/") && home && *home)
        return mem_printf("%s%s", home, path + 1);
    return mem_strdup(path);
}

static int set_value(struct config *c, const struct option *o, const char *value,
                     const char *as, struct err *err)
{
    void *field = (char *)c + o->offset;
    char **text = field;

    for (const char *p = value; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return err_set(err, ERR_INVALID, "%s must not contain control characters",
                           as);
    switch (o->type) {
    case OPTION_TEXT:
        if (!*value && *o->standard)
            return err_set(err, ERR_INVALID, "%s must not be empty", as);
        free(*text);
        *text = mem_strdup(value);
        return 0;
    case OPTION_PATH:
    case OPTION_MODEL:
        free(*text);
        *text = expand_home(value);
        return 0;
    case OPTION_CHOICE:
        return set_choice(value, o, as, text, err);
    case OPTION_NUMBER:
        return str_to_int(value, as, o->min, o->max, field, err);
    case OPTION_SIZE:
        return str_to_size(value, as, o->min, o->max, field, err);
    case OPTION_SWITCH:
        return set_switch(value, as, field, err);
    case OPTION_LIST:
        return add_items(value, as, field, err);
    }
    return 0;
}

int option_set(struct config *c, const struct option *o, const char *value,
               const char *as, struct err *err)
{
    if (set_value(c, o, value, as, err))
        return -1;
    c->sources[o - options] = (unsigned char)c->setting;
    return 0;
}

const char *option_applies_word(enum option_applies applies)
{
    static const char *const words[] = {"start", "load", "now"};

    return words[applies];
}

void option_reset_list(struct config *c, const struct option *o)
{
    struct config_list *list = (struct config_list *)(void *)((char *)c + o->offset);

    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    *list = (struct config_list){0};
}

static void print_quoted(const char *text, struct buf *out)
{
    buf_append(out, "\"", 1);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            buf_append(out, "\\", 1);
        buf_append(out, text, 1);
    }
    buf_append(out, "\"", 1);
}

void option_print_value(const struct config *c, const struct option *o, struct buf *out)
{
    const void *field = (const char *)c + o->offset;
    const struct config_list *list = field;

    switch (o->type) {
    case OPTION_TEXT:
    case OPTION_PATH:
    case OPTION_MODEL:
        print_quoted(*(char *const *)field, out);
        break;
    case OPTION_CHOICE:
        buf_append_str(out, *(char *const *)field);
        break;
    case OPTION_NUMBER:
    case OPTION_SIZE:
        buf_printf(out, "%" PRId64, *(const int64_t *)field);
        break;
    case OPTION_SWITCH:
        buf_append_str(out, *(const bool *)field ? "true" : "false");
        break;
    case OPTION_LIST:
        buf_append(out, "[", 1);
        for (size_t i = 0; i < list->count; i++) {
            buf_append_str(out, i ? ", " : "");
            print_quoted(list->items[i], out);
        }
        buf_append(out, "]", 1);
        break;
    }
}
