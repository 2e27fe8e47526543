/* inspect: what an open file is. Private to the engine; engine_inspect() is the way in. */
#ifndef MYSTI_ENGINE_INSPECT_INSPECT_H
#define MYSTI_ENGINE_INSPECT_INSPECT_H

#include "engine/files/weights.h"

/* One JSON object as text, see engine_inspect(); free() it. NULL: it cannot be written. */
char *inspect_report(const struct weights_file *file);

#endif
