/* folder: the name in a prompt to the file that it means. Names are looked for in the LoRA folders and what lies below
 * them, nowhere else. */
#ifndef MYSTI_ENGINE_LORA_FOLDER_H
#define MYSTI_ENGINE_LORA_FOLDER_H

#include "base/err.h"

/* folders: NULL at the end; one that does not exist is empty, the first that has the file wins. name: a file's, with or
 * without its ending, or the path to it from the folder on ("styles/ink"). ret_path: free() it. ERR_INVALID with the
 * parameter "prompt", and the name that is most like it. */
int lora_folder_find(char *const *folders, const char *name, char **ret_path,
                     struct err *err) MUST_CHECK;

#endif
