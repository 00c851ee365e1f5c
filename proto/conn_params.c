#include "proto/conn_params.h"

#include <stddef.h>

#include "proto/settings.h"

void pgr_conn_params_fini(struct pgr_conn_params *p)
{
	pgr_secret_free(p->password);
	p->password = NULL;
	p->password_asked = false;
}

bool pgr_conn_params_may_ask(const struct pgr_conn_params *p)
{
	return p->password_mode != PGR_PASSWORD_NEVER && !p->password_asked && p->ask_password != NULL;
}

int pgr_conn_params_ask(struct pgr_conn_params *p, struct pgr_err *err)
{
	char *password = NULL;

	if (p->ask_password(p->ask_arg, &password, err) != PGR_OK)
		return PGR_ERR;
	pgr_secret_free(p->password);
	p->password = password;
	p->password_asked = true;
	return PGR_OK;
}
