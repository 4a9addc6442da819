/*
 * What happens to a rollout at each of its stages: the manual's table is printed from this one
 * (print_tables.c), and tests/unit/test_stages.c goes through every cell.
 */
#ifndef BATON_TESTS_LIB_ROLLOUT_OUTCOMES_H
#define BATON_TESTS_LIB_ROLLOUT_OUTCOMES_H

#define STAGES(X)                                                                                  \
	X(CANARY, "canary")                                                                        \
	X(ROLLING, "rolling")                                                                      \
	X(BACK, "rolling back")                                                                    \
	X(HALF, "half way")                                                                        \
	X(RECYCLING, "recycling")

enum stage {
#define X(name, text) AT_##name,
	STAGES(X)
#undef X
		STAGE_ROWS
};

#define OUTCOMES(X)                                                                                \
	X(NEW, "new", "goes on; in the end every worker is of the new version")                    \
	X(OLD, "old", "goes on; in the end every worker is of the old version")                    \
	X(NEWEST, "newest",                                                                        \
		"turns to the newest version; in the end every worker is of that, or, if it does " \
		"not start, of the last one that was complete")                                    \
	X(SAME, "same", "goes on; in the end that worker is replaced by one of its version")       \
	X(STOPPED, "stopped",                                                                      \
		"ends at once; every worker is stopped, and started again it is of the version "   \
		"aimed at (after rolling back: the old one)")                                      \
	X(REMOVED, "removed", "ends at once; every worker is stopped, the program is gone")        \
	X(DOWN, "down",                                                                            \
		"ends at once; the workers are stopped in order, the executor first, and the "     \
		"supervisor ends: nothing waits for the rollout")                                  \
	X(FILE_, "file",                                                                           \
		"the deadman kills what is left; the next start is of the version in the file")

enum outcome_word {
#define X(name, word, text) OUTCOME_##name,
	OUTCOMES(X)
#undef X
		OUTCOME_WORDS
};

/* Event, its words, and the outcome at each stage in the order of STAGES. */
#define O(name) OUTCOME_##name
#define HAPPENINGS(X)                                                                              \
	X(TERM, "SIGTERM, shutdown", O(DOWN), O(DOWN), O(DOWN), O(DOWN), O(DOWN))                  \
	X(INT, "SIGINT, SIGQUIT", O(DOWN), O(DOWN), O(DOWN), O(DOWN), O(DOWN))                     \
	X(SCALE_UP, "scaled up", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))                          \
	X(SCALE_DOWN, "scaled down", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))                      \
	X(START, "baton start", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))                           \
	X(STOP, "baton stop", O(STOPPED), O(STOPPED), O(STOPPED), O(STOPPED), O(STOPPED))          \
	X(STOP_ONE, "stop of one worker", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))                 \
	X(RESTART, "baton restart", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))                       \
	X(ROLL, "restart \\-\\-rolling", O(NEWEST), O(NEWEST), O(NEWEST), O(NEWEST), O(NEWEST))    \
	X(RELOAD, "another version", O(NEWEST), O(NEWEST), O(NEWEST), O(NEWEST), O(NEWEST))        \
	X(TAKEN_OUT, "taken out", O(REMOVED), O(REMOVED), O(REMOVED), O(REMOVED), O(REMOVED))      \
	X(OLD_CRASHES, "an old worker dies", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))              \
	X(NEW_CRASHES, "a new worker dies", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))               \
	X(EXECUTOR_CRASHES, "the executor dies", O(NEW), O(NEW), O(OLD), O(OLD), O(SAME))          \
	X(SUPERVISOR_DIES, "the supervisor dies", O(FILE_), O(FILE_), O(FILE_), O(FILE_), O(FILE_))

enum happening {
#define X(name, text, a, b, c, d, e) HAPPENS_##name,
	HAPPENINGS(X)
#undef X
		HAPPENING_ROWS
};

static const struct {
	const char *text;
	enum outcome_word at[STAGE_ROWS];
} happenings[HAPPENING_ROWS] = {
#define X(name, text, a, b, c, d, e) {text, {a, b, c, d, e}},
	HAPPENINGS(X)
#undef X
};

#undef O
#endif
