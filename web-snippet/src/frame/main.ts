/** Entry of the frame: asks, and after a yes shows how the work goes. */

import { Card } from './card.ts';
import { readConfig } from './config.ts';
import { Embed } from './embed.ts';
import { loadWords } from './language.ts';
import { Text } from './text.ts';

const config = readConfig(document);
// The page's first message may come before the words; it waits for them.
const embed = new Embed((message) => void card.then((ready) => ready.obeyPage(message)));
const card = loadWords(location.search, navigator.languages).then((words) => new Card(config, new Text(words), embed));
