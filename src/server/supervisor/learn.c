/* What models really took. Asked of the kernel when a text model has answered and nothing runs: then its cache and its buffers have
 * been used. The most that one process had counts, for pages of its file may have been taken from it meanwhile; the
 * newest process counts, for an engine may have been replaced. A picture model says itself what it packed.
 *
 * The key holds the file's size and time, so another file of that name is another model, and the options that memory
 * depends on. Layers on a card are not part of the process's own memory, so with them nothing is learned; nor is anything
 * where the memory is a simulated one.
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

/* NULL: the file is gone, or layers are on a card. Release with free(). */
static char *key_of(const char *path, const struct worker_load_options *present)
{
    struct stat st;

    if (stat(path, &st) || (present && present->gpu_layers > 0))
        return NULL;
    if (!present) {
        uint64_t bytes = (uint64_t)st.st_size;
        int64_t modified = st.st_mtim.tv_sec;

        if (S_ISDIR(st.st_mode)) /* the time of a folder is not that of its files */
            model_folder_size(path, &bytes, &modified);
        return mem_printf("%s %lld %lld picture", path, (long long)bytes,
                          (long long)modified);
    }
    return mem_printf("%s %lld %lld context=%d slots=%d %s", path,
                      (long long)st.st_size, (long long)st.st_mtim.tv_sec,
                      present->context, present->slots,
                      worker_task_name(present->task));
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
        put(w->s, key_of(w->loaded, NULL), w->model_bytes);
    } else if (!memory_use_of_process("", w->pid, &use)) {
        uint64_t bytes = use.resident + use.swapped;

        if (bytes > w->measured_bytes)
            w->measured_bytes = bytes;
        put(w->s, key_of(w->loaded, &w->present), w->measured_bytes);
    }
}

void learn_correct(const struct supervisor *s, const char *path,
                   const struct worker_load_options *present, struct prediction *p)
{
    char *key = key_of(path, present);
    uint64_t bytes = key ? learned_find(s->learned, key) : 0;

    free(key);
    if (!bytes)
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
    char *key = key_of(path, NULL);
    uint64_t bytes = key ? learned_find(s->learned, key) : 0;

    free(key);
    return bytes;
}
