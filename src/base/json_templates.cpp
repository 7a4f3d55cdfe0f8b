#include "base/json_templates.hpp"

SINEW_JSON_TEMPLATES(template);
