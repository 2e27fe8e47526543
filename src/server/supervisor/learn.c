/* What models really took. Asked of the kernel when a text model has answered and nothing runs: then its cache and its buffers have
 * been used. The most that one process had counts, for pages of its file may have been taken from it meanwhile; the
 * newest process counts, for an engine may have been replaced. A picture model says itself what it packed.
 *
 * The key holds the file's size and time, so another file of that name is another model, and the options that memory
 * depends on. Of a model on a card what it has there is learned, where somebody says that: the context of the driver
 * and the compute buffers, hundreds of MiB, stand in no file. Nothing is learned where the memory is a simulated one.
 */
#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "server/config/config.h"
#include "server/memory/devices.h"
#include "server/memory/memory.h"
#include "server/supervisor/worker.h"

#include <inttypes.h>
#include <sys/stat.h>

#define FILE_MAX_BYTES (1024 * 1024)

/* present: of a text model; NULL: a picture model. NULL: the file is gone. Release with free(). */
static char *key_of(const char *path, const struct worker_load_options *present,
                    bool is_on_card)
{
    struct stat st;

    if (stat(path, &st))
        return NULL;
    if (!present) {
        uint64_t bytes = (uint64_t)st.st_size;
        int64_t modified = st.st_mtim.tv_sec;

        if (S_ISDIR(st.st_mode)) /* the time of a folder is not that of its files */
            model_folder_size(path, &bytes, &modified);
        return mem_printf("%s %lld %lld picture", path, (long long)bytes,
                          (long long)modified);
    }
    char layers[32] = "", cache[16] = "";

    if (is_on_card)
        snprintf(layers, sizeof(layers), " card layers=%d", present->gpu_layers);
    if (present->cache_type != CACHE_F16)
        snprintf(cache, sizeof(cache), " cache=%s",
                 cache_type_name(present->cache_type));
    return mem_printf("%s %lld %lld context=%d slots=%d %s%s%s", path,
                      (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                      present->context, present->slots, worker_task_name(present->task),
                      cache, layers);
}

void learn_begin(struct supervisor *s)
{
    char *path = file_join(s->config->home, "measured.json");
    struct buf text = {0};

    (void)!file_read(path, FILE_MAX_BYTES, &text, NULL); /* there may be none */
    s->learned = learned_read(text.data, text.len);
    s->measured = record_new(s->loop, path);
    buf_release(&text);
    free(path);
}

static void on_written(void *data, const struct err *err)
{
    struct supervisor *s = data;

    if (err)
        log_warning(s->log, "What models take could not be stored: %s", err->message);
    supervisor_wake(s); /* an end may wait for this */
}

static void put(struct supervisor *s, char *key, uint64_t bytes)
{
    if (key && bytes && learned_put(s->learned, key, bytes))
        record_write(s->measured, learned_text(s->learned), on_written, s);
    free(key);
}

void learn_from(struct worker *w)
{
    struct memory_use use;

    if (!w->loaded || devices_simulate_memory(w->s->devices))
        return;
    if (w->kind == WORKER_SD) {
        put(w->s, key_of(w->loaded, NULL, false), w->model_bytes);
    } else if (w->is_on_card) {
        uint64_t bytes;

        if (devices_of_process(w->s->devices, "", w->pid, &bytes))
            put(w->s, key_of(w->loaded, &w->present, true), bytes);
    } else if (!memory_use_of_process("", w->pid, &use)) {
        uint64_t bytes = use.resident + use.swapped;

        if (bytes > w->measured_bytes)
            w->measured_bytes = bytes;
        put(w->s, key_of(w->loaded, &w->present, false), w->measured_bytes);
    }
}

static uint64_t find(const struct supervisor *s, const char *path,
                     const struct worker_load_options *present, bool is_on_card)
{
    char *key = key_of(path, present, is_on_card);
    uint64_t bytes = key ? learned_find(s->learned, key) : 0;

    free(key);
    return bytes;
}

void learn_correct(const struct supervisor *s, const char *path,
                   const struct worker_load_options *present, bool is_on_card,
                   struct prediction *p)
{
    uint64_t bytes = find(s, path, present, is_on_card);

    if (bytes && is_on_card)
        predict_measured_on_card(p, bytes, present->gpu_layers);
    if (!bytes || is_on_card)
        return;
    /* the buffers are what can be known least; then the weights, of which not all may have been touched */
    p->is_learned = true;
    p->total_bytes = bytes;
    if (bytes < p->cache_bytes)
        p->cache_bytes = bytes;
    if (bytes < p->cache_bytes + p->weight_bytes)
        p->weight_bytes = bytes - p->cache_bytes;
    p->compute_bytes = bytes - p->cache_bytes - p->weight_bytes;
}

uint64_t learn_picture_model(const struct supervisor *s, const char *path)
{
    return find(s, path, NULL, false);
}
