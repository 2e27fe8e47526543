"""The writer's prose: templates for grammar.py (its essay explains the little language).

Tables: where a kind of subject may stand (SETTING_OF, SETTING), what it does there (POSTURE), how the
paragraph opens (OPEN_*), the light by time (LIGHT, with its PALETTE), what is around by setting
(SURROUND), a detail of the subject by kind (DETAIL), composition (COMPOSE) and style (STYLE: those the
painter knows weigh most).  Colors are the painter's: red, orange, yellow, green, blue, purple, white, black.
"""

SETTING_OF = {
    "animal": ["forest", "field", "snow", "garden", "mountains", "lake", "city", "sea", "desert", "plain"],
    "person": ["city", "field", "room", "sea", "forest", "garden", "snow", "mountains", "desert", "plain"],
    "creature": ["mountains", "forest", "city", "sea", "snow", "desert", "field", "sky"],
    "boat": ["sea", "sea", "lake"],
    "vehicle": ["city", "field", "desert", "mountains", "snow", "forest"],
    "flyer": ["sky", "sky", "field", "mountains", "sea"],
    "swimmer": ["under", "under", "sea", "lake"],
    "building": ["field", "forest", "sea", "mountains", "snow", "lake", "desert", "garden"],
    "plant": ["garden", "field", "forest", "room", "mountains", "plain"],
    "food": ["room", "room", "plain", "garden"],
    "thing": ["room", "room", "plain", "garden", "field", "sea", "forest"],
    "space": ["space"],
    "scene": ["plain"],
    "idea": ["plain"],
    "unknown": ["field", "forest", "room", "plain", "plain", "city", "garden", "sea", "mountains", "desert", "snow"],
}

SETTING = {
    "sea": ["on {a calm blue|a wide|an open|a dark green|a gently rolling} sea",
            "{close to|near|not far from} {a rocky|a low green|a long white|a quiet} shore",
            "{in|inside} a {small|quiet|sheltered} bay", "where {the waves|slow waves|small waves} meet the {sand|rocks}",
            "at the edge of {the ocean|a wide blue ocean|the sea}"],
    "lake": ["{on|beside} a {still|mirror-smooth|dark blue|quiet} lake", "{beside|along} a {slow|winding|shallow} river",
             "near the {reeds|stones} of a {quiet|small} pond", "where {a stream|a brook} runs into {a lake|still water}"],
    "forest": ["{between|among} {tall|dark|old|slender} {pines|trees|oaks|trunks}", "in a {small|sunny|round} clearing",
               "on a {mossy|narrow|winding} path through the {forest|woods}", "{deep in|at the edge of} {a green|an old|a silent} forest",
               "under a roof of {green|dense|rustling} leaves"],
    "field": ["on a {low|round|gentle|grassy} hill", "in a {wide|sunlit|green} {meadow|field} {of tall grass|full of flowers|of wheat|of poppies}",
              "beside a {narrow|dusty|sandy} path through the fields", "{in the middle of|at the edge of} {open country|a wide green plain|rolling farmland}",
              "where {two fields meet|the hills begin|the grass grows tall}"],
    "mountains": ["{high up|alone} on a {rocky|narrow|steep} ridge", "{below|before|facing} {snowy|jagged|steep blue} peaks",
                  "in a {deep|green|narrow|quiet} valley", "on a {stone|mountain} pass {above the clouds|between two peaks}"],
    "snow": ["in {fresh|deep|untouched|powdery} snow", "on a {white|wide white|silent white} plain", "{beside|on} a frozen {lake|river|pond}",
             "among {snowy|white|bare} {trees|hills|firs}"],
    "desert": ["among {golden|smooth|tall|rippled} dunes", "on a {wide|dry|cracked|sandy} plain", "in the shade of a {red rock|lone cactus|tall cliff}",
               "at the foot of a {red|tall|stony} {cliff|mesa}"],
    "city": ["on a {narrow|wet|busy|cobbled|quiet} street", "{between|among} {tall|old|narrow|leaning} houses", "on a {flat|quiet|small} rooftop",
             "in {an old|a sunny|an empty} {square|market}", "under a {street lamp|stone arch|row of lanterns}"],
    "room": ["on {a wooden|an old|a plain|a round} table", "{beside|by} {a tall|an open|a small} window", "in a {small|quiet|sunny|warm} room",
             "in the corner of a {quiet|cluttered|dim} {workshop|study|kitchen}", "on a {narrow|wooden|dusty} shelf"],
    "garden": ["in {a quiet|an overgrown|a walled|a small} garden", "{among|between} {roses and ivy|tall flowers|low hedges|blossoming bushes}",
               "beside a {stone|small|mossy} {fountain|wall|bench}", "under {an apple tree|a flowering branch|a trellis of vines}"],
    "space": ["in {the silence of|the depths of|open} space", "among {distant|countless|scattered} stars", "above the {curve|rings|edge} of a {blue|distant|pale} planet"],
    "under": ["{deep|far} below the waves", "above a {sandy|pale|rocky} sea floor", "{between|among} {swaying weeds|bright corals|dark rocks}",
              "in {clear|deep|calm} blue water"],
    "sky": ["{high|far} above {the hills|the fields|the rooftops|the sea}", "in a {wide|clear|pale} sky", "{among|between} {drifting|white|towering} clouds"],
    "plain": [""],
}

POSTURE = {
    "animal": ["%stands/stand% {still|quietly|alert}", "%sits/sit% {calmly|quietly}", "%waits/wait%", "%rests/rest%", "%pauses/pause%",
               "%looks/look% {up|back|around}", "%lies/lie% {half asleep|at ease}"],
    "person": ["%stands/stand% {still|quietly|upright}", "%waits/wait%", "%walks/walk% {slowly|alone}", "%pauses/pause%", "%sits/sit% {calmly|in thought}"],
    "creature": ["%rises/rise%", "%watches/watch%", "%waits/wait%", "%stands/stand% {guard|tall}", "%rests/rest%"],
    "boat": ["%drifts/drift%", "%rocks/rock% {gently|softly}", "%glides/glide%", "%lies/lie% {at rest|still}", "%sails/sail% {slowly|alone}"],
    "vehicle": ["%stands/stand% {still|waiting}", "%rolls/roll% {slowly|along}", "%rests/rest%", "%waits/wait%"],
    "flyer": ["%floats/float%", "%hangs/hang%", "%drifts/drift%", "%glides/glide%"],
    "swimmer": ["%glides/glide%", "%drifts/drift%", "%turns/turn% {slowly|in a slow circle}", "%moves/move% {slowly|without a sound}"],
    "building": ["%stands/stand% {alone|quietly|firmly}", "%rises/rise%", "%waits/wait% {silently|quietly}", "%rests/rest%"],
    "plant": ["%grows/grow%", "%stands/stand% {tall|alone}", "%bends/bend% {a little|in the wind}", "%opens/open% to the light"],
    "food": ["%lies/lie% {waiting|ready}", "%sits/sit%", "%rests/rest%", "%waits/wait%"],
    "thing": ["%lies/lie% {forgotten|waiting}", "%stands/stand% {alone|quietly}", "%rests/rest%", "%sits/sit%", "%waits/wait%"],
    "space": ["%hangs/hang%", "%floats/float%", "%turns/turn% slowly", "%drifts/drift%", "%shines/shine%"],
    "scene": ["%opens/open% {wide|before us}", "%lies/lie% {silent|still|before us}", "%stretches/stretch% {away|out} {into the distance|toward the horizon}",
              "%fills/fill% the {whole picture|view}"],
    "idea": ["%fills/fill% the {whole picture|view}", "%takes/take% shape"],
    "unknown": ["%stands/stand% {alone|quietly|out}", "%rests/rest%", "%waits/wait%", "%appears/appear%", "%sits/sit%", "%takes/take% shape"],
    "active": ["%fills/fill% the {picture|frame|view}", "%takes/take% the {center|middle} of the {picture|frame}", "%comes/come% into view",
               "%catches/catch% the eye {at once|first}", "%appears/appear%"],
}

OPEN_DET = [
    "[idea] [posture][place].", "[idea] [posture][place].", "[idea] [posture][place], {quite alone|small against the wide space|clear and close|calm and clear}.",
    "[idea] [posture][place], {seen from the front|seen from a little below|seen from the side|seen from close by}.",
    "[idea][place], {caught in a quiet moment|in a still and quiet moment|alone with the silence|close enough to touch}.",
    "[idea] {%is/are%|%is/are%} the {heart|center|star} of {this picture|the picture|the scene}.",
    "[idea] %fills/fill% the {middle|center|heart} of the {picture|frame|scene}.", "[idea] %holds/hold% the {middle|center} of {a calm|a wide|a simple} picture.",
]
OPEN_ANY = [
    "{The|This} {picture|scene|image} shows [idea][place].", "{The|This} {picture|scene|image} shows [idea][place].", "[At], [idea] [posture].",
    "{A wide|A quiet|A calm|A close|A simple} {view|picture|scene} of [idea][place].", "{Picture|Imagine} [idea][place].",
    "{Here|There}, [idea] [posture][place].", "{In the first light|In this quiet moment|For a moment|Without a sound}, [idea] [posture][place].",
    "{Everything|All attention|The whole picture} turns around [idea][place].", "{We see|The eye finds|One sees at once} [idea][place].",
]

PALETTE = {
    "night": ["deep blue", "black", "purple", "white", "yellow", "dark blue"],
    "dawn": ["pale yellow", "orange", "soft blue", "white", "light purple"],
    "day": ["blue", "bright yellow", "green", "white", "clear blue", "red"],
    "sunset": ["orange", "red", "purple", "deep blue", "golden yellow"],
    "fog": ["white", "soft blue", "pale green", "light purple", "pale blue"],
    "rain": ["blue", "dark green", "black", "white", "pale yellow"],
    "autumn": ["orange", "red", "yellow", "dark green", "soft blue"],
    "lamp": ["yellow", "orange", "dark blue", "red", "black"],
    "plain": ["blue", "yellow", "red", "green", "white", "purple"],
    "space": ["black", "deep blue", "purple", "white", "yellow"],
    "under": ["blue", "green", "deep blue", "white", "yellow"],
}

LIGHT = {
    "night": ["{pale|silver|cold|soft} moonlight {falls|pours|settles} over [the] and {leaves|draws} {a thin white edge|a pale rim|a cool blue shine} around [it].",
              "the moon shines in a dark sky, and [the] %throws/throw% {a long|a soft|a faint} shadow.",
              "{a full|a low yellow|a thin|a crescent} moon hangs in a {deep blue|dark|black} sky {full of|with a few} {small white|bright|quiet} stars.",
              "it is a quiet night, lit only by {the moon|a handful of stars|one small lamp}.",
              "{small white|countless|a few bright} stars shine above, and a {cool|soft|faint} blue light touches [the].",
              "{a single|one small|a warm} yellow light {glows|burns} in the dark and {picks out|finds|touches} [the].",
              "the night is {clear and still|deep and blue|wide and quiet}, and the moonlight turns every edge {white|silver|pale}."],
    "dawn": ["{the first|early|thin} sunlight {slips|comes|falls} in low from the {left|right} and {warms|touches|wakes} [the].",
             "{a pale|a soft|a cool} morning light {lies over|spreads across} everything, {half blue, half yellow|fresh and clear|still without shadows}.",
             "the sun is just {rising|coming up}, and a {thin|soft|light} mist {glows|hangs} {around|behind} [the].",
             "the sky {turns|fades} from {deep|cool|soft} blue to {pale yellow|warm orange|white} as the day begins.",
             "long morning shadows {stretch|reach} across the ground, and [the] %catches/catch% the first {gold|warm light|sun}."],
    "day": ["the sun shines in a blue sky and makes every color {clear|bright|strong}.", "it is a sunny day, with {clear|short|sharp} shadows and {clean|fresh|bright} light.",
            "{bright|clear|warm} daylight falls {from above|from the left|from the right} and {picks out|shows} every {edge|detail} of [the].",
            "a {clear|wide|cloudless} blue sky {opens|stretches} above, and the light is {even and bright|warm and clear|fresh and simple}.",
            "{small|a few|round} white clouds {drift|hang|float} in the blue sky, and sunlight {warms|rests on|falls on} [the].",
            "the light is soft and even, so that the shapes stay clear."],
    "sunset": ["the sun is setting and the sky is orange, with {a band of purple|a line of red|a streak of yellow} {low down|above the horizon|far away}.",
               "{warm|low|golden|late} evening light {comes|falls|streams} in from the {left|right} and {paints|edges|covers} [the] {in gold|in orange|with a warm glow}.",
               "the evening light is warm, and {long|soft|blue} shadows {reach|stretch} toward us.",
               "{red and orange|orange and purple|golden} clouds {burn|glow|spread} across the sky {behind|above} [the].",
               "the last sun {glows|lingers|rests} on [the] while the sky {darkens|turns purple|cools to blue}."],
    "fog": ["{a soft|a thick|a pale|a cool} mist {hides|softens|swallows} everything far away and leaves [the] {clear|alone|close}.",
            "the light is {pale|milky|soft and white}, without {shadows|sharp edges}, and the air {is still|feels damp|seems to glow}.",
            "fog {drifts|rolls|hangs} {low over the ground|between near and far|in slow bands}, and [the] {%appears/appear% out of it|%stands/stand% out softly}.",
            "behind [the] the world fades into {white|pale blue|soft blue}."],
    "rain": ["{thin|silver|fine|slanting} rain {falls|drifts} across the picture, and the ground {shines|gleams|mirrors [the]}.",
             "{dark|heavy|low} clouds {hang|gather|roll} overhead, with one {bright|pale|yellow} gap {far off|near the horizon|above [the]}.",
             "every surface is wet and {shining|gleaming|bright}, and small {puddles|drops} catch the {pale|white|last} light.",
             "a {cool|soft|gray} light lies over the rain, broken by a {touch|gleam} of {yellow|white}."],
    "autumn": ["{red and yellow|golden|orange} leaves {drift|spin|fall} through the {clear|cool|low} light around [the].",
               "{low|mild|golden} autumn sun {comes|falls} in from the side and {warms|touches} [the].",
               "the air is {cool and clear|crisp|still}, and everything glows in {orange, red and yellow|warm colors|gold}."],
    "lamp": ["{a warm|a small|a low} lamp {throws|casts|spreads} yellow light over [the] and leaves the {corners|rest} in {shadow|soft darkness|deep blue}.",
             "light {falls|slants|comes} in {through a window|from the left|from the right} and {rests on|warms|touches} [the].",
             "{soft|warm|gentle} light and {deep|soft} shadows make [the] look {close|calm|almost alive}.",
             "{one candle|a small fire|a single lamp} {glows|burns} nearby, and [the] %catches/catch% its {orange|yellow|warm} light."],
    "plain": ["the light is soft and even, with {gentle|barely any|soft} shadows.", "gentle light falls on [it] from {above|the left|the right}.",
              "bright even light keeps every {edge|shape|line} of [the] clear.", "{warm|clear|quiet} light comes from {one side|above} and {leaves|draws} {a soft|one clear} shadow.",
              "a {soft|clear|gentle} glow {surrounds|lies around} [the]."],
    "space": ["{cold|clear|hard} white light comes from a {far|distant|hidden} sun and {draws|cuts} a bright edge around [the].",
              "{small white|countless|a thousand} stars {shine|burn} in the black, and a {purple|blue|faint red} haze {glows|drifts} far behind [the].",
              "half of the view is {bright|lit|white}, half of it {black|deep shadow|dark}."],
    "under": ["{thin|long|slanting} rays of sunlight {fall|reach|come} down from the surface and {dance over|touch|wander across} [the].",
              "the light is {blue and green|soft and blue|cool and dim}, and {small|silver|slow} bubbles rise {past|beside|around} [the].",
              "the water glows {blue|green|pale blue} above and {fades|darkens} to {deep blue|black} below."],
}

SURROUND = {
    "tail": [", {calm|clear|quiet} and {bright|close|simple}", "", " in {a calm|a wide|a quiet} {scene|picture}"],
    "sea": ["{small|slow|gentle} waves {break|roll|whisper} {nearby|in long white lines|toward the shore}.", "far away the {sea|water} meets the sky in one {thin|clear|blue} line.",
            "{gulls|two gulls|white birds} {circle|drift} overhead and {foam|salt spray} {shines|glitters} {on the water|in the air}.",
            "the water {mirrors|carries|breaks up} the colors of the sky."],
    "lake": ["the still water {mirrors|doubles|holds} everything above it.", "{reeds|tall grasses|round stones} {line|frame} the {near|far} bank.", "{rings|small ripples} {spread|travel} slowly across the water."],
    "forest": ["{tall|dark|mossy} trunks {frame|stand on both sides of|close in behind} [the], and {ferns|mushrooms|small flowers} cover the ground.",
               "{spots of light|thin beams of light} {fall|break} through the {leaves|branches}.", "between the trees the forest {fades|deepens} into {dark green|blue shadow|darkness}.",
               "{moss|fallen leaves|pine needles} {covers|soften|lie across} the ground."],
    "field": ["{tall|soft|yellow} grass {bends|moves|whispers} in {the wind|a light wind}, and {low|round|blue} hills {close|end} the view.",
              "{small flowers|poppies and daisies|wild flowers} {dot|brighten} the {grass|green ground} in red, white and yellow.",
              "a {narrow|pale|winding} path leads {past [the]|into the distance|toward the horizon}.", "far behind {stands a lone tree|lies a small house|a row of trees marks the horizon}."],
    "mountains": ["{snowy mountains|steep peaks|blue ridges} rise {behind|far behind|on both sides}, one {behind|above} the other.", "a {thin|white|distant} waterfall {drops|falls} {down the rocks|into the valley}.",
                  "{clouds|thin clouds|wisps of mist} {cling to|drift below|wrap around} the {peaks|slopes}."],
    "snow": ["{snowflakes|a few flakes|slow white flakes} {drift|fall|float} {down|through the air}, and {every sound|everything} seems {hushed|far away}.",
             "{bare|dark|snow-covered} trees {stand|wait} in the {distance|background}.", "a {single|thin} line of footprints leads {away|past [the]|into the white}."],
    "desert": ["{long|smooth|golden} dunes {roll|run|stretch} to the horizon.", "{heat|warm air} {shimmers|trembles} above the sand, and {nothing else moves|the horizon wavers}.",
               "the wind has drawn {fine|soft|curved} lines into the sand."],
    "city": ["{warm|small|yellow} windows {glow|shine} in the {walls|houses} behind.", "{roofs and chimneys|old facades|signs and balconies} {crowd|line|frame} the {background|street}.",
             "the {wet|smooth|worn} stones {reflect|mirror|hold} {every light|the colors around [it]}.", "a few {small|distant|blurred} {figures|people} pass {in the distance|far behind}."],
    "room": ["{a book|a cup|an old clock|a folded cloth} {lies|stands|waits} {nearby|in the background|in the shadow}.", "{dust|fine dust} {floats|drifts} in the light, and the walls stay {plain|quiet|dark}.",
             "behind [the] a {plain|quiet|simple} {[c1]|[c2]} wall {keeps|leaves} the picture calm."],
    "garden": ["{petals|white petals|a few leaves} {lie|are scattered} on the {path|grass}.", "{roses|ivy|flowers} {climb|lean|spill} over a {low|stone|mossy} wall {behind|beside} [the].",
               "{bees|butterflies|two butterflies} {drift|dance|hover} {above|between} the flowers."],
    "space": ["a {striped|ringed|small red|pale blue} planet {hangs|glows|turns} {far behind|in one corner|near the edge}.", "a {thin|faint|broad} band of stars {crosses|divides} the picture."],
    "under": ["{small|silver|yellow} fish {flicker|pass|dart} {past|in the distance|through the weeds}.", "{corals|weeds|shells} in {red, yellow and purple|soft colors} {cover|grow on} the rocks."],
    "sky": ["far below lie {small fields|tiny houses|green hills|blue hills} {like a map|in soft colors|half hidden by clouds}.", "{round|soft|towering} clouds {drift|pile up|float} {around|below|behind} [the]."],
    "plain": ["nothing else is in the picture.", "the background is {[c1]|[c2]|a plain [c1]|a quiet [c2]}, with plenty of empty space.", "behind [it] is a plain [c1] background.",
              "around [it] everything is {calm|still|quiet} and {[c1]|[c2]}.", "the {space|air} around [the] is {open|empty|wide} and {quiet|still|calm}."],
}

DETAIL = {
    "animal": ["[its] eyes {shine|are bright and watchful|catch the light}.", "every line of [the] is {soft|clear|alert}, {ready to move|full of life|at ease}."],
    "person": ["{the face|the posture} is {calm|thoughtful|gentle|proud}, and the clothes {are simple|carry a touch of [c1]|move in the wind}."],
    "creature": ["[its] {shape|outline} is {huge|strange|noble} and yet {gentle|calm|graceful}."],
    "boat": ["{the hull|the wood|its shape}{| of [the]} is mirrored in the water.", "{thin|small|long} ripples {spread|run} from [the]."],
    "vehicle": ["{the paint|the metal|the glass} {shines|gleams|carries a few scratches} and {tells of|remembers} long {roads|journeys}."],
    "building": ["{small windows|one small window|two windows} {glow|shine} {yellow|warmly|in the walls}, and {thin smoke|ivy|moss} {rises|grows|clings} there.",
                 "the {walls|stones} are {old|rough|warm} and full of {small cracks|history|soft color}."],
    "plant": ["{every leaf|each leaf|each petal} {shows|has} a {clear|fine|bright} edge.", "{a drop of dew|one small drop} {hangs|shines} on it."],
    "food": ["the {skin|surface} is {smooth|rich|warm} and {shines|looks fresh|invites a bite}."],
    "thing": ["{small marks|fine scratches|soft reflections} on the surface {tell|hint at} {an old story|years of use}.", "[its] {outline|shape} is {simple|clear} and {easy to read|easy to love}."],
    "space": ["[its] {edge|surface} is {sharp|bright|finely marked} against the dark."],
    "unknown": ["[its] {outline|shape} is {simple|strange|clear} and {calm|easy to read|full of character}.", "{soft reflections|fine lines|small details} {give|lend} [it] {depth|life|weight}."],
}

COMPOSE = [
    "[the] %sits/sit% in the center, with plenty of empty space {around|above}.", "[the] %is/are% {large|small} in the {picture|frame}, a little to the {left|right}.",
    "a {simple|calm|clear} composition, seen from {the front|slightly above|a low angle|some distance}.", "a calm and balanced composition {in|of} [c1], [c2] and [c3].",
    "the view is {wide|low|close|open}, and the {eye|gaze} {goes|comes back|returns} to [the].", "{[c1] and [c2]|[c2] and [c3]} {rule|fill|share} the picture, with {one|a small|a single} {touch|spot|accent} of {[c3]|[c1]}.",
    "{the foreground|the front} is {dark|soft|simple}, the {middle|center} {clear|bright}, the {background|distance} {pale|[c1]|[c2]}.",
    "[the] {%stands/stand% out clearly against|%is/are% clear against|%is/are% outlined against} a {[c1]|[c2]} background.", "the composition is clear and balanced, and the background is {[c1]|[c2]|mostly [c1]}.",
    "{strong|quiet|clear} diagonals {lead|guide} the eye to [the].", "the horizon is {low|high}, which leaves {room|space} for the {sky and its colors|sky|ground and its shadows}.",
    "{one third|two thirds} of the picture {is|are} left empty, so that [the] %seems/seem% {small and brave|even closer|very quiet}.",
    "[the] %takes/take% the {lower|upper|left|right} third of the frame, and the rest {belongs to|is} {[c1] space|empty air|[c2] distance}.", "{near|close} things are {sharp|large}, far things {fade|turn} to {[c1]|[c2]|soft [c2]}.",
    "the {colors|tones} are {few|clear|warm|well chosen}: {[c1], [c2] and [c3]|[c1], [c2] and a little [c3]}.", "seen from the front, the shapes are {clear|simple|large} and the mood is {calm|quiet and friendly|gentle}.",
]

STYLE = {
    "flat": (30, ["flat style with clean edges{| and [c1] and [c2] surfaces}.", "the style is flat and simple{|, with clear shapes}.", "{flat colors|flat colors and clean edges}, {like a poster|bold and simple|calm and clear}.",
                  "drawn in a flat style, {simple and bright|with few colors|with bold shapes}."]),
    "watercolor": (26, ["painted in soft watercolor{|, with colors that run into each other|, with white paper shining through|, loose and light}.", "the style is watercolor, {soft and light|with pale edges|wet and loose}.",
                        "a {soft|light|quiet} watercolor {|painting }{in [c1] and [c2]|with gentle edges|full of air}."]),
    "neon": (10, ["drawn as a glowing neon sign{|, [c1] and [c2] on black}.", "the style is neon, {bright lines on black|with glowing edges|all glow and darkness}."]),
    "pixel art": (10, ["made as pixel art{|, with small square blocks of color|, bright and blocky}.", "the style is pixel art, {simple and colorful|with few colors|like an old game}."]),
    "oil": (5, ["painted in oil with {broad|thick|visible} strokes and {rich|warm|deep} color.", "an oil painting with {rich|deep|glowing} colors and {a calm surface|soft edges}."]),
    "ink": (4, ["drawn in {black ink|fine ink lines} with {a wash of [c1]|one spot of [c2]|plenty of white}.", "{fine|quick|clear} ink lines and {a little [c1]|light washes of [c2]}."]),
    "pencil": (4, ["a {soft|careful|light} pencil drawing with {a hint of [c1]|gentle shading|clear lines}."]),
    "paper": (4, ["made of cut paper in {[c1], [c2] and [c3]|layers of [c1] and [c2]}, with {small|soft} shadows."]),
    "poster": (3, ["like an old travel poster, {bold|simple|clear} shapes in [c1] and [c2]."]),
    "photo": (3, ["like a {sharp|quiet|clear} photograph with a {soft|blurred} background and {fine|rich} detail."]),
    "storybook": (4, ["like a picture from an old storybook, {warm|gentle|hand drawn} and {full of small details|friendly|quiet}."]),
}
CLOSE = {"asked": ["[style], {with|kept in} [c1], [c2] and a little [c3].", "[style], {calm|clear|rich} and {full of detail|simple|balanced}.", "all of it {done|made|shown} as {it should be|asked}: [style], {with clear shapes|in [c1] and [c2]}."]}

# What a user may ask for -> how the paragraph names it.
STYLE_ASKED = {
    "flat": "flat style", "watercolor": "watercolor", "neon": "neon", "pixel art": "pixel art", "oil": "oil painting", "ink": "ink drawing", "pencil": "pencil drawing",
    "paper": "cut paper", "poster": "poster", "photo": "photograph", "storybook": "storybook picture", "crayon": "crayon drawing", "anime": "anime style", "comic": "comic style",
    "line art": "line art", "low poly": "low poly style", "pastel": "soft pastel", "charcoal": "charcoal drawing", "mosaic": "mosaic", "woodcut": "woodcut", "stained glass": "stained glass",
    "art nouveau": "art nouveau", "impressionist": "impressionist painting", "minimalist": "minimalist style", "3d render": "3d render", "graffiti": "graffiti",
}

SHAPE_OPEN = {
    "det": ["[idea][ground].", "[idea][ground].", "[idea][ground], {clear and simple|bold and clear|bright and plain}.", "[idea] %sits/sit%[ground].", "[idea][ground]: {nothing more is needed|a simple picture|plain and bold}."],
    "any": ["a picture of [idea][ground].", "{a simple|a clear|a bold} picture of [idea][ground].", "the picture shows [idea][ground]."],
}
SHAPE_REST = {
    "spot": ["{it sits in the center|it rests in the middle of the picture|everything is centered}.", "{it sits in the center|it rests in the middle of the picture}, with plenty of empty space around it."],
    "row": ["they {stand|rest} {side by side|in one row|in a quiet row}, {all alike|evenly spaced|close together}.", "side by side, they {fill|share} the {middle|center} of the picture."],
    "ground": ["the background is [back]{|, plain and even|, clean and quiet}.", "behind [it] is a plain [back] background.", "a [back] background fills the picture.", "around [it] everything is [back]."],
    "light": ["the light is soft and even.", "bright even light {leaves|with} no shadows.", "gentle light falls on [it].", "{soft light|clear light|warm light} {rests|lies} on the {surface|shape}.", "the light is clear, {with soft shadows|without shadows}."],
    "compose": ["a simple composition, seen from the front.", "a calm and balanced composition.", "the composition is clear and balanced.", "nothing else is in the picture.", "there is plenty of empty space.", "the edges are {clean|sharp|clear} and the shapes are clear."],
    "mood": ["the mood is calm.", "the mood is quiet and friendly.", "a clean picture, {bold|bright|calm} and {simple|clear}."],
}
SHAPE_COLOUR = ["[the] %is/are% [colour].", "the color of [the] is [colour].", "[the] %is/are% painted in [colour]."]
SHAPE_STYLE = {
    "flat": ["flat style with clean edges.", "the style is flat and simple.", "flat colors{|, calm and clear|, bold and simple}."],
    "watercolor": ["painted in soft watercolor.", "the style is watercolor{|, soft and light}.", "a {soft|light|quiet} watercolor."],
    "neon": ["drawn as a glowing neon sign.", "the style is neon{|, with glowing edges}."],
    "pixel art": ["made as pixel art.", "the style is pixel art{|, simple and colorful}."],
}
