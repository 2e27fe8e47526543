/* Files of upscalers: refused with a sentence, or a network whose graph is complete at another size, too. */
#include "engine/files/reader.h"
#include "engine/upscale/net.h"

#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weights_file *file;
    struct net *net;
    struct graph *graph;
    struct err err = {0};
    int side;

    if (weights_memory_open(&file, data, size, NULL))
        return 0;
    if (net_read(&net, file, &err)) {
        if (!err.message[0] || err.code != ERR_BAD_FILE)
            abort();
        return 0;
    }
    side = 12 * net->shuffle;
    graph = net_graph(net, side, side);
    if (graph_check(graph, &err))
        abort();
    const struct shape *s = graph_shape(graph, graph->nodes[graph->outputs[0]].out);

    if (net_made_bytes(net, side, side)
            ? shape_elements(s) != side * side * 3 * net->scale * net->scale
            : s->dim[1] != side * net->scale || s->dim[3] != 3)
        abort();
    graph_free(graph);
    net_close(net);
    return 0;
}
