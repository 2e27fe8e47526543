/* The words for what a text model is for. What a file was made for is decided where it is launched (launch.c). */
#include "server/supervisor/supervisor.h"

#include <string.h>

static const char *const words[] = {
#define X(name, word) [TASK_##name] = word,
    WORKER_TASKS(X)
#undef X
};
#define WORD_COUNT (sizeof(words) / sizeof(*words))

const char *worker_task_name(enum worker_task task)
{
    return words[task];
}

int worker_task_from_name(const char *name, enum worker_task *ret, struct err *err)
{
    for (size_t i = 0; i < WORD_COUNT; i++) {
        if (strcmp(name, words[i]) == 0) {
            *ret = (enum worker_task)i;
            return 0;
        }
    }
    return err_set_param(err, ERR_INVALID, "task",
                         "task must be one of auto, chat, embedding, rerank, not "
                         "\"%.60s\"",
                         name);
}
