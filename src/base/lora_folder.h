/* lora_folder: the files in the LoRA folders and what lies below them, for the worker, which looks up the names in prompts,
 * and for the server, which lists them. */
#ifndef MYSTI_BASE_LORA_FOLDER_H
#define MYSTI_BASE_LORA_FOLDER_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct lora_file {
    char *name; /* the path from its folder on, without the ending: "styles/ink" */
    char *path;
    uint64_t bytes;
    int64_t modified; /* seconds since 1970 */
};

struct lora_list {
    struct lora_file *all; /* folder after folder, by name within each */
    size_t count;
};

/* folders: NULL at the end; one that does not exist is empty. A name that an earlier folder has hides a later one. */
void lora_list_read(struct lora_list *ret_list, char *const *folders);
void lora_list_release(struct lora_list *list);

/* name: a file's, with or without its ending, or the path to it from the folder on. ret_path: free() it. ERR_INVALID with
 * the parameter "prompt" and the name that is most like it, also for a path to somewhere else. */
int lora_folder_find(char *const *folders, const char *name, char **ret_path,
                     struct err *err) MUST_CHECK;

#endif
