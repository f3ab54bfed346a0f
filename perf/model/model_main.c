/* SPDX-License-Identifier: MIT */
/* numio-model: runs the model over policies, loads and numbers of cores, and prints a table of
 * values that perf/model/plot.gp draws.  With --check it looks at what must hold in any model, and
 * says `ok` or what does not. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "perf/model/model.h"

enum { CORES_MAX = 64, NODES_MAX = 8 };

static const char usage[] =
    "Usage: numio-model [--machine M] [--nodes N] [--cores N] [--seed N]\n"
    "                              a table; up to N cores on each of N nodes\n"
    "       numio-model --machines  the machines whose latencies are known\n"
    "       numio-model --check     looks at the model itself\n";

static const struct model_machine *machine = &model_machines[0];

static struct model_result run(unsigned nodes, unsigned cores, enum model_policy policy,
                               enum model_load load, uint64_t seed)
{
    struct model_setup setup = { machine, nodes, cores, policy, load, seed };
    return model_run(&setup);
}

static void print_table(unsigned nodes, unsigned cores_max, uint64_t seed)
{
    puts("load policy nodes cores tasks_per_us far_lines_per_task crossed_percent");
    for (unsigned load = 0; load < MODEL_LOADS; load++)
        for (unsigned policy = 0; policy < MODEL_POLICIES; policy++) {
            for (unsigned cores = 1; cores <= cores_max; cores *= 2) {
                struct model_result r =
                    run(nodes, cores, (enum model_policy)policy, (enum model_load)load, seed);
                double ended = r.ended > 0 ? (double)r.ended : 1;
                printf("%s %s %u %u %.3f %.3f %.2f\n", model_load_names[load],
                       model_policy_names[policy], nodes, nodes * cores,
                       1000 * (double)r.ended / r.time_ns, (double)r.far_lines / ended,
                       100 * (double)r.crossed / ended);
            }
        }
}

static unsigned failures;

static void expect(bool holds, const char *what)
{
    printf("%s %s\n", holds ? "ok" : "FAILED", what);
    failures += !holds;
}

static void check_model(void)
{
    for (unsigned policy = 0; policy < MODEL_POLICIES; policy++) {
        enum model_policy p = (enum model_policy)policy;
        struct model_result one = run(1, 8, p, MODEL_SKEWED, 1);
        expect(one.far_lines == 0 && one.crossed == 0, "with one node nothing crosses");
        struct model_result tree = run(4, 8, p, MODEL_TREE, 1);
        expect(tree.born == tree.ended && tree.born == (UINT64_C(2) << 16) - 1,
               "every task of the tree ends once");
        struct model_result first = run(4, 4, p, MODEL_BALANCED, 7);
        struct model_result again = run(4, 4, p, MODEL_BALANCED, 7);
        expect(memcmp(&first, &again, sizeof first) == 0, "the same seed gives the same run");
    }
}

/* What numio promises of a machine. */
static void check_policy(void)
{
    double none = (double)run(4, 8, MODEL_NO_STEALING, MODEL_SKEWED, 1).ended;
    double numio = (double)run(4, 8, MODEL_NUMIO, MODEL_SKEWED, 1).ended;
    double flat = (double)run(4, 8, MODEL_FLAT, MODEL_SKEWED, 1).ended;
    expect(none * 3 < numio, "without stealing a skewed load keeps one node of four busy");
    expect(numio * 10 > flat * 7, "numio's policy lets a skewed load cross");
    struct model_result calm = run(4, 16, MODEL_NUMIO, MODEL_BALANCED, 1);
    struct model_result busy = run(4, 16, MODEL_FLAT, MODEL_BALANCED, 1);
    expect(calm.crossed * 100 < calm.ended, "of a balanced load fewer than 1 % cross");
    expect(calm.far_lines <= busy.far_lines, "and a flat policy moves no fewer lines");
}

static void check(void)
{
    check_model();
    for (unsigned i = 0; i < MODEL_MACHINES; i++) {
        machine = &model_machines[i];
        printf("   %s\n", machine->title);
        check_policy();
    }
}

static void print_machines(void)
{
    printf("%-12s %8s %8s %8s  ns a cache line: in a node, in a package, between packages\n",
           "machine", "node", "package", "far");
    for (unsigned i = 0; i < MODEL_MACHINES; i++) {
        const struct model_machine *m = &model_machines[i];
        printf("%-12s %8.0f %8.0f %8.0f  %s\n", m->name, m->node_line_ns, m->package_line_ns,
               m->far_line_ns, m->title);
    }
}

static const struct model_machine *parse_machine(const char *text)
{
    for (unsigned i = 0; i < MODEL_MACHINES; i++)
        if (strcmp(text, model_machines[i].name) == 0)
            return &model_machines[i];
    fprintf(stderr, "numio-model: there is no machine \"%s\"; --machines lists them\n", text);
    exit(2);
}

static unsigned parse_count(const char *text, unsigned max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < 1 || value > max) {
        fprintf(stderr, "numio-model: \"%s\" is no number from 1 to %u\n%s", text, max, usage);
        exit(2);
    }
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "nodes", required_argument, NULL, 'n' }, { "cores", required_argument, NULL, 'c' },
        { "seed", required_argument, NULL, 's' },  { "machine", required_argument, NULL, 'm' },
        { "machines", no_argument, NULL, 'l' },    { "check", no_argument, NULL, 'k' },
        { "help", no_argument, NULL, 'h' },        { NULL, 0, NULL, 0 }
    };
    unsigned nodes = 4, cores = CORES_MAX, seed = 1;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'n':
            nodes = parse_count(optarg, NODES_MAX);
            break;
        case 'c':
            cores = parse_count(optarg, CORES_MAX);
            break;
        case 's':
            seed = parse_count(optarg, 1000000);
            break;
        case 'm':
            machine = parse_machine(optarg);
            break;
        case 'l':
            print_machines();
            return 0;
        case 'k':
            check();
            return failures > 0;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    print_table(nodes, cores, seed);
    return 0;
}
