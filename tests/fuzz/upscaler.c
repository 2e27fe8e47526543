/* Files of upscalers: refused with a sentence, or a network whose graph is complete at another size, too. */
#include "engine/files/reader.h"
#include "engine/upscale/rrdb.h"

#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weights_file *file;
    struct rrdb *net;
    struct graph *graph;
    struct err err = {0};
    int side;

    if (weights_memory_open(&file, data, size, NULL))
        return 0;
    if (rrdb_read(&net, file, &err)) {
        if (!err.message[0] || err.code != ERR_BAD_FILE)
            abort();
        return 0;
    }
    side = 12 * net->shuffle;
    graph = rrdb_graph(net, side, side);
    if (graph_check(graph, &err))
        abort();
    const struct shape *s = graph_shape(graph, graph->nodes[graph->outputs[0]].out);

    if (s->dim[1] != side * net->scale || s->dim[3] != 3)
        abort();
    graph_free(graph);
    rrdb_close(net);
    return 0;
}
