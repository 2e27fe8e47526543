/* named_files: the model files in given folders and what lies below them, LoRAs, upscalers, textual inversions and VAEs, for
 * the worker, which looks up the names in requests, and for the server, which lists them. A folder that is one network
 * (model_folder_network) is one of them, under the folder's name. */
#ifndef MYSTI_BASE_NAMED_FILES_H
#define MYSTI_BASE_NAMED_FILES_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct named_file {
    char *name; /* the path from its folder on, without the ending: "styles/ink" */
    char *path;
    uint64_t bytes;
    int64_t modified; /* seconds since 1970 */
};

struct named_list {
    struct named_file *all; /* folder after folder, by name within each */
    size_t count;
};

/* folders: NULL at the end; one that does not exist is empty. A name that an earlier folder has hides a later one. */
void named_list_read(struct named_list *ret_list, char *const *folders);
void named_list_release(struct named_list *list);

struct named_search {
    char *const *folders;
    const char *what;  /* "LoRA", for sentences */
    const char *param; /* whose fault it is */
};

/* name: a file's, with or without its ending, or the path to it from the folder on. ret_path: free() it. ERR_INVALID with
 * the parameter and the name that is most like it, also for a path to somewhere else. */
int named_file_find(const struct named_search *search, const char *name,
                    char **ret_path, struct err *err) MUST_CHECK;

#endif
