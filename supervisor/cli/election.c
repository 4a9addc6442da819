/* handoff, lock: what moves the baton. */
#include "supervisor/cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "supervisor/cli/lock.h"
#include "supervisor/cli/output.h"

int cli_handoff(struct cli *c)
{
	bool waits = !cli_has(c, OPTION_NO_WAIT), away = cli_has(c, OPTION_AWAY);
	json_t *request, *result = NULL;
	int rc;

	if (away && c->word_count)
		return cli_usage(c, "--away gives the lock to another instance: '%s' is in the way",
			c->words[0]);
	request = json_pack("{s:s, s:b, s:b}", "cmd", "handoff", "wait", waits, "progress", 1);
	if (away)
		json_object_set_new(request, "away", json_true());
	if (c->word_count)
		json_object_set_new(request, strchr(c->words[0], ':') ? "worker" : "program",
			json_string(c->words[0]));
	rc = cli_request(c, request, waits ? -1 : CLI_QUICK_MS, &result);
	if (rc == 0 && away)
		printf("released: this instance stays out for two heartbeats\n");
	else if (rc == 0 && !waits)
		printf("begun\n");
	else if (rc == 0)
		printf("%s: %s -> %s, term %lld\n", output_text(result, "program"),
			output_text(result, "from"), output_text(result, "to"),
			(long long)output_number(result, "term"));
	json_decref(result);
	return rc;
}

int cli_lock(struct cli *c)
{
	static const struct {
		const char *word, *name;
		int (*run)(struct cli *c);
		unsigned options;
	} rows[] = {
		{"info", "lock info", lock_info, CLI_BIT(JSON)},
		{"history", "lock history", lock_history, CLI_BIT(JSON) | CLI_BIT(LIMIT)},
		{"release", "lock release", lock_release, CLI_BIT(FORCE)},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned foreign = c->set & (CLI_BIT(JSON) | CLI_BIT(LIMIT) | CLI_BIT(FORCE)) &
				   ~rows[i].options;
		if (strcmp(c->words[0], rows[i].word) != 0)
			continue;
		c->name = rows[i].name;
		if (foreign)
			return cli_usage(c, "the option --%s does not apply here",
				foreign & CLI_BIT(JSON)    ? "json"
				: foreign & CLI_BIT(LIMIT) ? "limit"
							   : "force");
		return rows[i].run(c);
	}
	return cli_usage(c, "'%s' is none of info, history, release", c->words[0]);
}
