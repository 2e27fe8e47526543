#include "engine/graph/backend.h"

#include <string.h>

/* best first */
static const struct backend_ops *const backends[] = {
#ifdef MYSTI_HAVE_DNNL
    &backend_dnnl,
#endif
    &backend_ref,
};

const char *backend_names(void)
{
#ifdef MYSTI_HAVE_DNNL
    return "dnnl, ref";
#else
    return "ref";
#endif
}

int backend_open(const char *name, const struct backend_options *options,
                 struct backend **ret_backend, struct err *err)
{
    for (size_t i = 0; i < sizeof(backends) / sizeof(*backends); i++)
        if (!name || strcmp(name, backends[i]->name) == 0)
            return backends[i]->open(options, ret_backend, err);
    return err_set_param(err, ERR_INVALID, "backend",
                         "there is no back end '%s': this build has %s", name,
                         backend_names());
}

void backend_close(struct backend *backend)
{
    if (backend)
        backend->ops->close(backend);
}
