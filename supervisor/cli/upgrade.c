/* upgrade: the supervisor's binary is executed again, in place. */
#include "supervisor/cli/cli.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "supervisor/cli/output.h"

enum { PATIENCE_MS = 60000 };

static json_t *request(const struct cli *c)
{
	const char *binary = c->word_count > 0 ? c->words[0] : NULL;
	char here[PATH_MAX], path[2 * PATH_MAX];
	json_t *o = json_pack("{s:s, s:b}", "cmd", "upgrade", "wait", !cli_has(c, OPTION_NO_WAIT));

	if (binary && binary[0] != '/' && getcwd(here, sizeof(here))) {
		snprintf(path, sizeof(path), "%s/%s", here, binary);
		binary = path;
	}
	if (binary)
		json_object_set_new(o, "binary", json_string(binary));
	return o;
}

int cli_upgrade(struct cli *c)
{
	json_t *result = NULL;
	int rc = cli_request(c, request(c), PATIENCE_MS, &result);

	if (rc == 0 && cli_has(c, OPTION_NO_WAIT) && cli_has(c, OPTION_JSON))
		json_object_set_new(result, "begun", json_true());
	if (rc == 0 && cli_has(c, OPTION_JSON))
		rc = output_json(result);
	else if (rc == 0 && cli_has(c, OPTION_NO_WAIT))
		printf("begun\n");
	else if (rc == 0)
		printf("upgraded in place: %s -> %s (pid %lld), the supervisor stood still for "
		       "%.1f ms\n",
			output_text(result, "from"), output_text(result, "to"),
			(long long)output_number(result, "pid"),
			json_number_value(json_object_get(result, "stall_ms")));
	json_decref(result);
	return rc;
}
